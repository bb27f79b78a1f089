"""Is a number usable? Checks between an epoch and what is decided from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eyas import dist
from eyas.log import warn
from eyas.models import Detector, detector_class
from eyas.run.tracking import TrainingDiverged


def plain_floats(metrics: Mapping[str, Any] | None, source: str) -> dict[str, float]:
    """Return metrics as Python floats, so that they can be logged, saved and compared.

    Raises:
        ValueError: a value is not a number.
    """
    plain = {}
    for key, value in (metrics or {}).items():
        try:
            plain[str(key)] = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source} returned {key}={value!r}, which is not a number.") from error
    return plain


def usable_fitness(fitness: Any) -> float | None:
    """Return a fitness that can be compared; nan would otherwise stay the best for ever."""
    if fitness is None:
        return None
    if not math.isfinite(float(fitness)):
        warn(f"fitness is {float(fitness)}: this epoch cannot be the best.")
        return None
    return float(fitness)


def all_finite(model: nn.Module) -> bool:
    """Whether every parameter is a finite number; one question to the device for the whole model."""
    norms = torch._foreach_norm([p.detach() for p in model.parameters()])
    return bool(torch.stack(norms).isfinite().all())


def warn_if_not_portable(model: nn.Module) -> None:
    """Tell the user now if checkpoints of this model will need its class: its table does not describe all of it.

    A class that changes only losses, or how weights are made, is described by its table; one with layers or a forward
    pass of its own is not, and is opened with ``YOLO(path, model_class=ThatClass)``.
    """
    if not isinstance(model, Detector):
        return
    cls, stock = type(model), detector_class(model.yaml)
    if cls is stock:
        return
    with torch.device("meta"):
        described = stock(model.yaml, nc=model.nc, verbose=False)
    own_forward = [n for n in ("forward", "predict", "fuse") if getattr(cls, n) is not getattr(stock, n)]
    own_layers = {k: v.shape for k, v in model.state_dict().items()} != {
        k: v.shape for k, v in described.state_dict().items()
    }
    if own_forward or own_layers:
        what = "layers that its table does not list" if own_layers else f"its own {own_forward[0]}()"
        warn(f"{cls.__name__} has {what}: open its checkpoints with YOLO(path, model_class={cls.__name__}).")


def refuse_divergence(losses: Mapping[str, float], model: nn.Module, epoch: int, rate: float, last: Path) -> None:
    """Stop if something became infinite or nan, on any process.

    Args:
        losses: means of the epoch.
        model: the live one.
        epoch: 1-based.
        rate: largest learning rate.
        last: latest checkpoint, if it exists the one before it happened.

    Raises:
        TrainingDiverged: says what, and what to do.
    """
    broken = [name for name, value in losses.items() if not math.isfinite(value)]
    broken += ["the weights"] if not all_finite(model) else []
    if broken := dist.agree(broken):
        kept = f"{last} holds the epoch before" if last.exists() else "no checkpoint was written yet"
        raise TrainingDiverged(
            f"{', '.join(broken)} became nan or infinite in epoch {epoch}; {kept}. "
            f"The learning rate was {rate:g}: try a smaller lr0, or amp=False."
        )
