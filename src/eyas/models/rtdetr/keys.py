"""Names of tensors in published files, and ours: those of RT-DETRv2 (spec detr 1.10)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

RENAMES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        # RT-DETR v1 -> v2
        (r"^encoder\.input_proj\.(\d+)\.0\.", r"encoder.input_proj.\1.conv."),
        (r"^encoder\.input_proj\.(\d+)\.1\.", r"encoder.input_proj.\1.norm."),
        (r"^decoder\.enc_output\.0\.", "decoder.enc_output.proj."),
        (r"^decoder\.enc_output\.1\.", "decoder.enc_output.norm."),
        # HGNetv2 of D-FINE -> of RT-DETRv2
        (r"^backbone\.stem\.(stem2[ab])\.conv\.weight$", r"backbone.stem.\1.conv.1.weight"),
        (r"^(backbone\.stages\.\d+\.blocks\.\d+)\.aggregation\.0\.", r"\1.aggregation_squeeze_conv."),
        (r"^(backbone\.stages\.\d+\.blocks\.\d+)\.aggregation\.1\.", r"\1.aggregation_excitation_conv."),
    )
)
IGNORED = ("anchors", "valid_mask", "num_points_scale", "num_batches_tracked", "up", "reg_scale", "mean", "std")
"""Last parts of names that a file may hold or lack: they are constants, or counters that nothing reads."""

PARTS = ("backbone.", "encoder.", "decoder.")


def our_name(name: str) -> str:
    """Return what we call a tensor that a file of RT-DETR v1, v2 or D-FINE calls ``name``."""
    for pattern, new in RENAMES:
        name, changed = pattern.subn(new, name)
        if changed:
            break
    return name


def is_ignored(name: str) -> bool:
    """Whether a tensor may be missing on either side."""
    return name.rsplit(".", 1)[-1] in IGNORED


def rename(state: Mapping[str, T]) -> dict[str, T]:
    """Return a state under our names; the file of a backbone alone gets the backbone's prefix.

    ``module.``, which wrappers put in front of every name, is left out.
    """
    plain = {name.removeprefix("module."): value for name, value in state.items()}
    alone = not any(name.startswith(PARTS) for name in plain)
    return {our_name(f"backbone.{name}" if alone else name): value for name, value in plain.items()}


def without_ignored(names: Iterable[str]) -> list[str]:
    """Return names that must fit, in order."""
    return [name for name in names if not is_ignored(name)]
