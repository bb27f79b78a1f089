"""More metrics in every validation.

What: adds F1, AP by size, recall at a precision, values per class, or the result of your own function to the metrics.
When: after each validation, from the detections it matched, on every process; again in the final evaluation.
Default: precision, recall, mAP50 and mAP50-95 only; nothing else is computed.
Hazards: a metric per class adds a column per class to ``results.csv``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from eyas.callbacks.base import StockCallback
from eyas.metrics.detection import DetMetrics
from eyas.metrics.extra import Metric, metric_named
from eyas.run.protocol import Run

if TYPE_CHECKING:
    from eyas.config import TrainOptions

MetricFunction = Callable[[DetMetrics], "float | Mapping[str, float]"]


def extra_metrics(metrics: DetMetrics, *wanted: str | Metric | MetricFunction) -> dict[str, float]:
    """Return metrics of a processed ``DetMetrics``: by name, as objects, or from functions of it.

    Raises:
        ValueError: unknown name, something that is no number, or two values for one key.
    """
    values: dict[str, float] = {}
    for metric in wanted:
        for key, value in one_metric(metrics, metric).items():
            if key in values:
                raise ValueError(f"two metrics report {key!r}; give one of them another name.")
            values[key] = value
    return values


def one_metric(metrics: DetMetrics, metric: str | Metric | MetricFunction) -> dict[str, float]:
    """Return the values of one metric by key; a function's plain number is reported under its name."""
    wanted = metric_named(metric) if isinstance(metric, str) else metric
    found: Any = wanted(metrics)
    name = getattr(wanted, "__name__", type(wanted).__name__).strip("<>")
    by_key = found if isinstance(found, Mapping) else {name: found}
    values = {}
    for key, value in by_key.items():
        try:
            values[key if "/" in key else f"metrics/{key}"] = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the metric {name} returned {key}={value!r}, which is not a number.") from error
    return values


def det_metrics(run: Run) -> DetMetrics:
    """Return the matched detections of the validation that has just run.

    Raises:
        ValueError: the validator has none.
    """
    found = getattr(run.validator, "metrics", None)
    if not isinstance(found, DetMetrics):
        raise ValueError(
            f"extra metrics are computed from validator.metrics, a DetMetrics; {type(run.validator).__name__} has "
            "none. Build on DetectionValidator, or add the numbers in validate()."
        )
    if not found.stats:
        raise ValueError(
            "extra metrics are computed from what the validator matched, and it has not run: let validate() call "
            "super().validate(), or add the numbers there."
        )
    return found


def class_names(run: Run) -> dict[int, str]:
    """Return the class names of a run's data by id."""
    names = run.data.get("names", {})
    return dict(names) if isinstance(names, Mapping) else dict(enumerate(names))


class MetricReport(StockCallback):
    """Report more metrics in every validation.

    Args:
        *metrics: names (``"f1"``, see ``eyas.metrics.METRIC_NAMES``), objects such as ``F1(conf=0.25)``, or functions
            ``fn(det_metrics) -> float | {key: float}``; a number is reported as ``metrics/<name of the function>``.
    """

    options = ("metrics",)

    def __init__(self, *metrics: str | Metric | MetricFunction) -> None:
        if not metrics:
            raise ValueError('MetricReport needs at least one metric, for example MetricReport("f1").')
        self.metrics: list[Metric] = []
        self.functions: list[MetricFunction] = []
        for metric in metrics:
            self._add(metric)
        self.seen: dict[str, float] = {}

    def _add(self, given: str | Metric | MetricFunction) -> None:
        metric = metric_named(given) if isinstance(given, str) else given
        if isinstance(metric, type) or not callable(metric):
            raise ValueError(
                f"MetricReport takes names, metric objects and functions, one after the other; got {metric!r}."
            )
        if metric in self.metrics or metric in self.functions:
            raise ValueError(f"MetricReport was given {metric!r} twice.")
        if is_metric(metric):
            self.metrics.append(metric)
        else:
            self.functions.append(metric)

    @classmethod
    def from_options(cls, options: TrainOptions) -> MetricReport | None:
        return cls(*options.metrics) if options.metrics else None

    def metric_keys(self, names: Mapping[int, str]) -> list[str]:
        """Return the keys of the metrics that are objects; what functions report, only they know."""
        return [column for metric in self.metrics for column in metric.columns(names)]

    def may_add_metrics(self) -> bool:
        return bool(self.functions) or super().may_add_metrics()

    def adjust_metrics(self, trainer: Run, metrics: dict[str, float]) -> dict[str, float]:
        found = extra_metrics(det_metrics(trainer), *self.metrics, *self.functions)
        twice = found.keys() & metrics.keys()
        if twice:
            raise ValueError(f"MetricReport and validate() both report {', '.join(sorted(twice))}; drop one of them.")
        self.seen = found
        return metrics | found

    def describe(self, trainer: Run) -> dict[str, object]:
        mains = [metric.columns(class_names(trainer))[0] for metric in self.metrics]
        return {"metrics": ", ".join([*mains, *(getattr(fn, "__name__", repr(fn)) for fn in self.functions)])}

    def witness(self, trainer: Run) -> dict[str, object]:
        return {"metrics": {k: v if math.isfinite(v) else None for k, v in self.seen.items()}} if self.seen else {}


def is_metric(metric: object) -> TypeGuard[Metric]:
    """Whether this is a metric object, which knows its columns, and no plain function."""
    return callable(getattr(metric, "columns", None))
