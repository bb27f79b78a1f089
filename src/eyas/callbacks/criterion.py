"""A number to choose by: which key of which validation, which way is better, and whether it will exist at all.

Shared by everything that decides from a metric: the best epoch, early stopping, a schedule that waits for a plateau.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from eyas.callbacks.metrics import class_names, det_metrics
from eyas.metrics.detection import METRIC_KEYS
from eyas.metrics.extra import (
    METRICS,
    SHORT_KEYS,
    Metric,
    class_column,
    is_metric_name,
    metric_named,
    metric_with_column,
)
from eyas.names import nearest
from eyas.nn.unwrap import unwrap_model
from eyas.run.overrides import overrides
from eyas.run.protocol import Run

Function = Callable[[dict[str, float]], float]
MODES = ("max", "min")


class Criterion:
    """One number per validation, compared in one direction.

    Args:
        metric: a key that is logged (``"metrics/mAP50(B)"``, ``"val/box_loss"``), a short name (``"fitness"``,
            ``"map50"``, ``"f1"``, ``"recall_at_p90"``), one class of it (``"map/cat"``), or ``fn(metrics) -> float``.
        mode: ``"max"`` or ``"min"``; None takes min for a loss (see `is_loss`) and max for everything else.

    Attributes:
        key: the key once `resolve` has found it, None for a function.
    """

    def __init__(self, metric: str | Function, mode: str | None = None) -> None:
        if not (isinstance(metric, str) and metric) and not callable(metric):
            raise ValueError(f"a metric is the name of one, or a function of the metrics; got {metric!r}.")
        if mode not in (None, *MODES):
            raise ValueError(f"mode={mode!r} of {label(metric)} must be 'max' or 'min'.")
        self.metric = metric
        self.label = label(metric)
        self.mode = mode or ("min" if isinstance(metric, str) and is_loss(metric) else "max")
        self.key: str | None = None
        self.source: Metric | None = None

    # -- does it exist? ------------------------------------------------------------------------------------------------
    def resolve(self, run: Run, asked_by: str) -> None:
        """Find the key before training; the first validation decides where only the user's code can know.

        Raises:
            ValueError: nothing will log such a key; names the nearest one.
        """
        if not isinstance(self.metric, str):
            return
        names = class_names(run)
        self.key = full_key(self.metric, names)
        logged = known_keys(run)
        if self.key not in logged:
            self.source = metric_with_column(self.key, names)
        if self.source is None and self.key not in logged and not may_log_more(run, self.key):
            raise ValueError(unknown_key(self.metric, asked_by, logged))

    def add_to(self, run: Run, metrics: dict[str, float]) -> dict[str, float]:
        """Return metrics with this one among them: measured here if it ships with Eyas and nobody else reports it."""
        if self.source is None or self.key is None or self.key in metrics:
            return metrics
        return metrics | {self.key: self.source(det_metrics(run))[self.key]}

    # -- its value -----------------------------------------------------------------------------------------------------
    def value(self, run: Run, fitness: float | None, asked_by: str) -> float:
        """Return the value in this epoch; nan when there is none.

        Args:
            run: just validated.
            fitness: what ``"fitness"`` means here.
            asked_by: who asks, for the error.

        Raises:
            ValueError: the validation did not report such a key, or the function returned no number.
        """
        values = measured(run) | {"fitness": math.nan if fitness is None else fitness}
        if callable(self.metric):
            return as_number(self.metric(values), self.label)
        assert self.key is not None, "resolve() runs before training"
        if self.key not in values:
            raise ValueError(unknown_key(self.metric, asked_by, list(values)))
        return values[self.key]

    def score(self, value: float) -> float:
        """Return the value so that larger is better."""
        return -value if self.mode == "min" else value

    def better(self, value: float, best: float | None, min_delta: float = 0.0) -> bool:
        """Whether a value beats the best so far by more than ``min_delta``; ties and nan do not, infinity neither."""
        if not math.isfinite(value):
            return False
        return best is None or self.score(value) > self.score(best) + min_delta

    def __str__(self) -> str:
        return f"{self.label} ({self.mode})"


def label(metric: object) -> str:
    """Return what a metric is called: its key, or the name of the function."""
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)


def is_loss(key: str) -> bool:
    """Whether a key names a loss: all of ``train/`` and ``val/``, and what ends with "loss" before any class."""
    head, name = key.partition("/")[0], key.partition("(")[0]
    if head in SHORT_KEYS or is_metric_name(head):
        return False  # map/weight_loss: what follows is a class
    return head in ("train", "val") or head.endswith("loss") or name.endswith("loss")


def as_number(value: Any, name: str) -> float:
    """Return what a user's function returned as a float.

    Raises:
        ValueError: it is not a number.
    """
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}() returned {value!r}, which is not a number.") from error


# -- keys --------------------------------------------------------------------------------------------------------------
def full_key(metric: str, names: Mapping[int, str]) -> str:
    """Return the key behind a short name, or the text itself.

    Raises:
        ValueError: the metric has one value per class and no main one.
    """
    if metric in SHORT_KEYS:
        return SHORT_KEYS[metric]
    if is_metric_name(metric):
        found = metric_named(metric)
        columns = found.columns(names)
        if not found.has_main:
            raise ValueError(f"{metric} has a value per class; name one of them, for example {columns[0]!r}.")
        return columns[0]
    name, _, class_name = metric.partition("/")
    return class_column(name, class_name, names) or metric


def known_keys(run: Run) -> list[str]:
    """Return the keys that this run will log, as far as Eyas can know."""
    names, losses = class_names(run), loss_names(run)
    more = getattr(run.validator, "more_keys", None)  # a user's own validator may not tell
    return [
        "fitness",
        *METRIC_KEYS,
        *(key for component in run.callbacks.callbacks for key in component.metric_keys(names)),
        *(f"{split}/{name}" for split in ("val", "train") for name in losses),
        *(more() if more else ()),
    ]


def loss_names(run: Run) -> tuple[str, ...]:
    """Return the names of the losses, asked of the criterion; none if it does not tell."""
    criterion = getattr(unwrap_model(run.model), "criterion", None)  # a user's own model may keep its loss elsewhere
    return tuple(getattr(criterion, "loss_names", ()))


def may_log_more(run: Run, key: str) -> bool:
    """Whether code that is not Eyas' own may log this key: only the first validation can tell."""
    if key.startswith(("train/", "val/")) and not loss_names(run):
        return True
    if overrides(type(run)).keys() & {"validate", "get_validator", "label_loss_items"}:
        return True
    return any(component.may_add_metrics() for component in run.callbacks.callbacks)


def measured(run: Run) -> dict[str, float]:
    """Return the epoch's train losses and the latest validation's metrics, under the keys of ``results.csv``."""
    return {**run.label_loss_items(run.meter.means()), **run.metrics}


def unknown_key(metric: str, asked_by: str, known: list[str]) -> str:
    """Say that nothing logs a key, what is meant perhaps, and what there is."""
    names = [*known, *SHORT_KEYS, *METRICS, "recall_at_p90"]
    near = nearest_key(metric, names)
    hint = f" Did you mean {near!r}?" if near else ""
    short = ", ".join([*SHORT_KEYS, *METRICS, "recall_at_pNN"])
    return f"{asked_by}: no metric {metric!r} is logged.{hint} Logged are {', '.join(known)}; by short name: {short}."


def nearest_key(name: str, known: list[str]) -> str | None:
    """Return the known name closest to this one; case and the decoration of keys do not count."""

    def plain(key: str) -> str:
        return re.sub(r"^metrics/|\(B\)$", "", key).lower()

    by_plain = {plain(key): key for key in reversed(known)}
    found = nearest(plain(name), by_plain)
    return by_plain[found[0]] if found else None
