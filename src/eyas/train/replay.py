"""Taking the step again that ended a run: ``eyas replay runs/detect/train/nan_step_37``, on a CPU, without the data."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eyas.checkpoint import CheckpointError, class_name, load_checkpoint
from eyas.config import TrainOptions
from eyas.device import seed_step
from eyas.log import LOGGER, warn
from eyas.losses.items import named_losses
from eyas.models import Detector
from eyas.models.rebuild import network_from
from eyas.nn.norms import hold_norms
from eyas.train import messages
from eyas.train.nonfinite import Origin, origin
from eyas.train.recorder import BATCH, CHECKPOINT, REPORT
from eyas.types import Progress

NEEDED = ("told", "epoch", "step", "epochs", "seed", "rank", "weights", "amp", "gains", "class_weights", "batch")


def replay(folder: str | Path) -> Origin:
    """Take a recorded step again, say what of it is no number, and return that; nothing where all of it is.

    Raises:
        ValueError: the folder holds no step.
        CheckpointError: its state is damaged, or of a network whose class is not here.
    """
    folder = Path(folder)
    report = read_report(folder)
    batch = read_batch(folder, report)
    if not (folder / CHECKPOINT).is_file():
        raise ValueError(f"{folder} holds no weights: the run had saved none before that step.")
    LOGGER.info("recorded: %s", report["told"])
    if report["weights"] != "before the step":
        warn(f"the weights are those of {report['weights']}: the ones before that step were lost to it.")
    checkpoint = load_checkpoint(folder / CHECKPOINT)
    network = network_of(checkpoint, report)
    seed_step(report["seed"], report["epoch"], report["step"], report["rank"])
    amp = {"bfloat16": torch.bfloat16, "float16": torch.bfloat16}.get(report["amp"])

    def losses() -> tuple[Tensor, Mapping[str, Tensor]]:
        with torch.autocast("cpu", dtype=amp, enabled=amp is not None):
            return named_losses(network(batch), network)

    found = origin(network, batch, losses)
    LOGGER.info("replayed: %s", found if found else "all of it is finite here; what is around the network made it")
    return found


def read_report(folder: Path) -> dict[str, Any]:
    """Return what is known of a step.

    Raises:
        ValueError: nothing, or nothing sound.
    """
    try:
        report = json.loads((folder / REPORT).read_bytes())
    except FileNotFoundError:
        raise ValueError(
            f"{folder} holds no recorded step (no {REPORT}): give a folder nan_step_<n> of a run."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{folder / REPORT} cannot be read: {error}") from None
    missing = [name for name in NEEDED if name not in report] if isinstance(report, dict) else list(NEEDED)
    if missing:
        raise ValueError(f"{folder / REPORT} does not say {missing[0]!r}; it was not written by a run, or is damaged.")
    return report


def read_batch(folder: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the batch of a step as the network saw it, with what the report on it tells in plain values.

    Raises:
        ValueError: it is not there, or damaged.
    """
    try:
        with np.load(folder / BATCH, allow_pickle=False) as stored:
            batch: dict[str, Any] = {name: torch.from_numpy(stored[name]) for name in stored}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{folder / BATCH} cannot be read: {error}") from None
    if "img" not in batch:
        raise ValueError(f"{folder / BATCH} holds no images: the run's own loader made them, and cannot be asked here.")
    return batch | report["batch"]


def network_of(checkpoint: Mapping[str, Any], report: Mapping[str, Any]) -> Detector:
    """Return the network as it was trained: its live weights, its loss, what was frozen.

    Raises:
        CheckpointError: it has no state of a run, or layers that no table describes.
    """
    if "state" not in checkpoint:
        raise CheckpointError(f"{CHECKPOINT} holds weights only")
    state = checkpoint["state"]
    network = network_from({**checkpoint, "model": state["model"]})
    if class_name(type(network)) != checkpoint["model_class"]:
        warn(f"the run's own {checkpoint['model_class']} is not here: its table's network and loss stand in for it.")
    network.args = TrainOptions.from_dict(checkpoint["train_args"], checkpoint["train_sources"])
    network.gains, network.class_weights = report["gains"], report["class_weights"]
    if network.args.nms is not None:
        network.set_head_attr(end2end=not network.args.nms)
    network.criterion = network.init_criterion()
    network.fit_criterion()
    messages.tell_criterion(network.criterion, Progress(report["epoch"], report["epochs"]))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in state["frozen"])
    network.train()
    hold_norms(network, state["freeze_layer_names"])
    return network
