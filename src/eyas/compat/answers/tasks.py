"""``ultralytics.nn.tasks``: networks from files, and what layers of a script's own are built with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eyas.checkpoint import load_checkpoint
from eyas.models import Detector, model_table, network_from
from eyas.nn.conv import same_padding


def attempt_load_one_weight(
    weight: str | Path, device: torch.device | str | None = None, inplace: bool = True, fuse: bool = False
) -> tuple[Detector, dict[str, Any]]:
    """Return the network of a checkpoint in evaluation mode, and what the file holds; nothing in it is run.

    Args:
        weight: a checkpoint of Eyas or of the incumbent. device: where to; None for the CPU.
        inplace: kept for callers of the incumbent's function. fuse: fold normalisations into convolutions.

    Raises:
        FileNotFoundError: no such file. CheckpointError: it cannot be read.
    """
    checkpoint = load_checkpoint(weight)
    model = network_from(checkpoint).to(device or "cpu")
    return (model.fuse() if fuse else model), checkpoint


def attempt_load_weights(
    weights: str | Path | Sequence[str | Path],
    device: torch.device | str | None = None,
    inplace: bool = True,
    fuse: bool = False,
) -> Detector:
    """Return the network of one checkpoint, see `attempt_load_one_weight`.

    Raises:
        ValueError: several checkpoints; Eyas has no ensembles.
    """
    files = [weights] if isinstance(weights, str | Path) else list(weights)
    if len(files) != 1:
        raise ValueError(f"{len(files)} checkpoints: Eyas has no ensembles; load one.")
    return attempt_load_one_weight(files[0], device, inplace, fuse)[0]


def torch_safe_load(weight: str | Path, safe_only: bool = True) -> tuple[dict[str, Any], str]:
    """Return what a checkpoint holds, and its path; nothing in it is run, whatever is asked."""
    return load_checkpoint(weight), str(weight)


def yaml_model_load(path: str | Path) -> dict[str, Any]:
    """Return the table of layers of a model's name or YAML file.

    Raises:
        UnknownModelError: neither a known name nor a file.
    """
    return model_table(path)


def autopad(k: int | Sequence[int], p: int | None = None, d: int = 1) -> int | list[int]:
    """Return ``p``, or the padding that keeps the size for an odd kernel, or for each of its sides."""
    if p is not None:
        return p
    return same_padding(k, d) if isinstance(k, int) else [same_padding(side, d) for side in k]


def guess_model_task(model: object) -> str:
    """Return the only task there is."""
    return "detect"
