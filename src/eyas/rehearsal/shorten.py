"""The user's options, shortened to a rehearsal: every switch that lies inside their run lies inside ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from eyas.callbacks.freeze import Phase
from eyas.config import TrainOptions
from eyas.config.facts import Fixed, Rehearsed
from eyas.config.options import facts

EPOCHS = 2
BATCH = 4  # two images in each of two processes


def shortened(
    options: TrainOptions, *, data: Path, folder: Path, processes: int, imgsz: int, batch: int = BATCH
) -> TrainOptions:
    """Return the options of a rehearsal.

    Who gave an option stays as it was: a setting of the user's that does nothing is an error here as in the long run,
    and one of ours is none.

    Args:
        options: of the real run.
        data: YAML of the few images.
        folder: where this run's files go.
        processes: how many train together.
        imgsz: side of the images in px.
        batch: images per step over all processes.
    """
    values = options.to_dict()
    total = options.epochs
    for name in values:
        form = facts(name).rehearsed
        if isinstance(form, Fixed):
            values[name] = form.value
        elif form in SHORTEN and options.is_typed(name):
            values[name] = SHORTEN[form](values[name], total)
    values |= {"data": str(data), "save_dir": str(folder), "processes": processes, "imgsz": imgsz, "batch": batch}
    values |= {"epochs": EPOCHS}
    return TrainOptions.from_dict(values, options.sources() | {"epochs": "call"})


def short_count(value: int, total: int | None) -> int:
    """Return a number of epochs for a rehearsal: 0 stays 0, what fills the run fills ours, the rest is one epoch."""
    if value <= 0:
        return value
    return EPOCHS if total is not None and value >= total else 1


def short_length(value: float, total: int | None) -> float:
    """Return a length that may be a fraction of an epoch, in proportion."""
    return value * EPOCHS / total if total is not None else min(value, 0.5)


def short_freeze(value: Any, total: int | None) -> Any:
    """Return the phases of ``freeze`` for a rehearsal; layers stay what they are."""
    if not (isinstance(value, list) and value and all(isinstance(item, dict) for item in value)):
        return value
    return [{**item, **short_phase_values(item, total)} for item in value]


def short_phase_values(phase: dict[str, Any], total: int | None) -> dict[str, Any]:
    """Return the lengths of one phase, as far as they were given."""
    given = {name: phase[name] for name in ("start", "epochs", "ramp") if phase.get(name) is not None}
    short = Phase("all", **given).shortened(total, EPOCHS)
    return {name: getattr(short, name) for name in given}


def short_stop(value: dict[str, Any], total: int | None) -> dict[str, Any]:
    """Return the rule of early stopping for a rehearsal."""
    return {key: short_count(item, total) if key in ("patience", "start") else item for key, item in value.items()}


# What a form of `Rehearsed` makes of a typed value, given the epochs of the user's run if they are known.
SHORTEN: dict[object, Callable[[Any, int | None], Any]] = {
    Rehearsed.COUNT: short_count,
    Rehearsed.PERIOD: lambda value, total: min(value, EPOCHS),
    Rehearsed.EACH: lambda value, total: min(value, 1),
    Rehearsed.WARM_UP: lambda value, total: min(short_length(value, total), EPOCHS - 0.5),
    Rehearsed.PHASES: short_freeze,
    Rehearsed.PHASE_LENGTH: lambda value, total: short_phase_values({"epochs": value}, total)["epochs"],
    Rehearsed.RAMP: lambda value, total: min(short_length(value, total), 1.0),
    Rehearsed.STOP_RULE: short_stop,
    # Still a person's wish, and still all of the images.
    Rehearsed.SHARE: lambda value, total: 0.999 if value != 1 else value,
    Rehearsed.PRECISION: lambda value, total: value if value in (True, False, "fp32") else True,
}
