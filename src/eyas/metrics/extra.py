"""Metrics beyond precision, recall and mAP, computed from what `DetMetrics` already holds: nothing is matched twice.

Each is a small object: `columns(names)` tells what it will report, before there is anything to measure; calling it with
a processed `DetMetrics` returns the numbers. Means are over all classes that have ground truth: a class whose value is
0 counts. What cannot be measured, such as a class without ground truth, is nan; without any ground truth, means are 0
as those of `DetMetrics` are.

Legend: N detections, M ground-truth boxes, K classes that have ground truth, T IoU thresholds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from eyas.metrics.average_precision import average_precision
from eyas.metrics.detection import METRIC_KEYS, DetMetrics
from eyas.metrics.matching import IOU_THRESHOLDS, match_detections
from eyas.names import did_you_mean

Names = Mapping[int, str]

SIZES: Mapping[str, tuple[float, float]] = {
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""COCO's limits on the area of a box, in square pixels of the original image; both ends count."""


class Metric(Protocol):
    """A metric that can be asked for by name.

    Attributes:
        has_main: whether the first column is the metric's main value; otherwise a column must be named to choose by it.
    """

    has_main: ClassVar[bool]

    def columns(self, names: Names) -> list[str]:
        """Return the columns that a call will fill for these classes, the main value first."""

    def __call__(self, metrics: DetMetrics) -> dict[str, float]:
        """Return the value of each column; `metrics.process()` has run."""


@dataclass(frozen=True)
class F1:
    """F1 at IoU 0.5, as a mean over classes and per class.

    Args:
        conf: confidence from which a detection counts, in [0, 1); None takes the one with the best mean F1, at which
            precision and recall are reported too.
    """

    conf: float | None = None
    has_main: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.conf is not None and not 0 <= self.conf < 1:
            raise ValueError(f"F1(conf={self.conf}): a confidence lies in [0, 1).")

    def columns(self, names: Names) -> list[str]:
        at = "best" if self.conf is None else f"conf{self.conf:g}"
        stem = f"metrics/F1@iou0.5_{at}"
        return [f"{stem}(B)", *class_columns(stem, names)]

    def __call__(self, metrics: DetMetrics) -> dict[str, float]:
        box = metrics.box
        f1 = box.f1 if self.conf is None else f1_at(metrics, self.conf)
        return _with_mean(self.columns(metrics.names), f1, box.ap_class_index, metrics.nc)


@dataclass(frozen=True)
class RecallAtPrecision:
    """Highest recall at IoU 0.5 that a confidence threshold reaches while precision holds, as a mean over classes.

    A class that never reaches the precision has recall 0.

    Args:
        percent: lowest precision that is accepted, 1 to 100 %.
    """

    percent: int = 90
    has_main: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.percent <= 100:
            raise ValueError(f"RecallAtPrecision({self.percent}): a precision is between 1 and 100 %.")

    def columns(self, names: Names) -> list[str]:
        return [f"metrics/recall@iou0.5_p{self.percent}(B)"]

    def __call__(self, metrics: DetMetrics) -> dict[str, float]:
        values = [recall_at_precision(*curve, self.percent) for curve in class_curves(metrics)]
        return {self.columns(metrics.names)[0]: float(np.mean(values)) if values else 0.0}


@dataclass(frozen=True)
class APBySize:
    """mAP50-95 of small, medium or large objects, by COCO's rules; nan when the split has no object of that size.

    Objects of other sizes neither count nor hurt: they are matched last, and neither the detections on them nor
    unmatched detections of other sizes are false alarms.

    Args:
        size: `small` (up to 32 x 32 px of the original image), `medium` or `large` (from 96 x 96 px).
    """

    size: str
    has_main: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"APBySize({self.size!r}): sizes are {', '.join(SIZES)}.")

    def columns(self, names: Names) -> list[str]:
        return [f"metrics/AP_{self.size}(B)"]

    def __call__(self, metrics: DetMetrics) -> dict[str, float]:
        _, ap = ap_of_sizes(metrics, *SIZES[self.size])
        return {self.columns(metrics.names)[0]: float(ap.mean()) if ap.size else float("nan")}


@dataclass(frozen=True)
class MAP75:
    """Mean average precision at IoU 0.75."""

    has_main: ClassVar[bool] = True

    def columns(self, names: Names) -> list[str]:
        return ["metrics/mAP75(B)"]

    def __call__(self, metrics: DetMetrics) -> dict[str, float]:
        return {"metrics/mAP75(B)": float(metrics.box.map75)}


@dataclass(frozen=True)
class APPerClass:
    """Average precision of every class, at IoU 0.5 and as the mean over 0.5 to 0.95."""

    has_main: ClassVar[bool] = False

    def columns(self, names: Names) -> list[str]:
        return [*class_columns("metrics/mAP50", names), *class_columns("metrics/mAP50-95", names)]

    def __call__(self, metrics: DetMetrics) -> dict[str, float]:
        box = metrics.box
        values = [*spread(box.ap50, box.ap_class_index, metrics.nc), *spread(box.ap, box.ap_class_index, metrics.nc)]
        return dict(zip(self.columns(metrics.names), values, strict=True))


# -- by name -----------------------------------------------------------------------------------------------------------
METRICS: Mapping[str, Callable[[], Metric]] = {
    "f1": F1,
    "ap_small": lambda: APBySize("small"),
    "ap_medium": lambda: APBySize("medium"),
    "ap_large": lambda: APBySize("large"),
    "map75": MAP75,
    "ap_per_class": APPerClass,
}
PATTERNS: Mapping[str, Callable[[int], Metric]] = {
    "recall_at_p": lambda percent: RecallAtPrecision(percent),
    "f1_at_conf": lambda percent: F1(percent / 100),
}
METRIC_NAMES: Mapping[str, str] = {
    "f1": "F1 at IoU 0.5 and the confidence with the best mean F1: mean over classes, and per class",
    "f1_at_confNN": "the same at a confidence of NN %, for example f1_at_conf25",
    "recall_at_pNN": "highest recall at IoU 0.5 with a precision of at least NN %, for example recall_at_p90",
    "ap_small": "mAP50-95 of objects up to 32 x 32 px of the original image, by COCO's rules",
    "ap_medium": "mAP50-95 of objects from 32 x 32 to 96 x 96 px",
    "ap_large": "mAP50-95 of objects from 96 x 96 px",
    "map75": "mean average precision at IoU 0.75",
    "ap_per_class": "mAP50 and mAP50-95 of every class",
}
"""Every name that `metric_named` knows, with what it measures."""

SHORT_KEYS: Mapping[str, str] = dict(zip(("precision", "recall", "map50", "map"), METRIC_KEYS, strict=True)) | {
    "fitness": "fitness"
}
"""Short names of what each validation reports anyway."""


def is_metric_name(name: str) -> bool:
    """Whether `metric_named` knows this name."""
    return name in METRICS or _pattern(name) is not None


def metric_named(name: str) -> Metric:
    """Return a shipped metric, such as `f1`, `ap_small` or `recall_at_p90`; `METRIC_NAMES` lists all.

    Raises:
        ValueError: no such metric; names the nearest one.
    """
    if name in METRICS:
        return METRICS[name]()
    found = _pattern(name)
    if found is not None:
        return PATTERNS[found[0]](found[1])
    known = [*METRICS, "recall_at_p90", "f1_at_conf25"]
    hint = did_you_mean(name.lower(), known, cutoff=0.5)
    raise ValueError(f"there is no metric {name!r}.{hint} Metrics: {', '.join(METRIC_NAMES)}.")


def metric_with_column(key: str, names: Names) -> Metric | None:
    """Return the shipped metric that fills this column, or None."""
    candidates = [make() for make in METRICS.values()]
    if at_precision := re.fullmatch(r"metrics/recall@iou0\.5_p([1-9]\d?|100)\(B\)", key):
        candidates.append(RecallAtPrecision(int(at_precision[1])))
    if at_conf := re.match(r"metrics/F1@iou0\.5_conf(0(?:\.\d+)?)\(", key):
        candidates.append(F1(float(at_conf[1])))
    return next((metric for metric in candidates if key in metric.columns(names)), None)


def class_column(name: str, class_name: str, names: Names) -> str | None:
    """Return the column of one class: `class_column("map50", "cat", names)`; None if there is no such column."""
    stems = {"map50": "metrics/mAP50", "map": "metrics/mAP50-95", "f1": "metrics/F1@iou0.5_best"}
    labels = class_labels(names)
    if name not in stems or class_name not in labels:
        return None
    return f"{stems[name]}({class_name})"


def class_columns(stem: str, names: Names) -> list[str]:
    """Return one column per class, in the order of their ids."""
    return [f"{stem}({label})" for label in class_labels(names)]


def class_labels(names: Names) -> list[str]:
    """Return a label per class: its name, with its id where another class, or the mean's "(B)", has the same one."""
    seen = Counter(names.values())
    return [f"{name} #{i}" if seen[name] > 1 or name == "B" else name for i, name in sorted(names.items())]


# -- the arithmetic ----------------------------------------------------------------------------------------------------
def f1_at(metrics: DetMetrics, conf: float) -> NDArray[np.float64]:
    """Return F1 (K,) of every class with ground truth at IoU 0.5, counting detections of at least this confidence."""
    stats = metrics.stats
    shown = (stats["conf"] >= np.float32(conf)) & ~stats["excused"][:, 0]
    found = np.bincount(stats["pred_cls"][shown], minlength=metrics.nc)
    right = np.bincount(stats["pred_cls"][shown & stats["tp"][:, 0]], minlength=metrics.nc)
    classes = metrics.box.ap_class_index
    return 2 * right[classes] / (found[classes] + metrics.nt_per_class[classes])


def recall_at_precision(tp: NDArray, conf: NDArray, num_targets: int, percent: int) -> float:
    """Return the highest recall of one class that a confidence threshold reaches at this precision; 0 if none does.

    Args:
        tp: (N,) bool.
        conf: (N,) scores, descending; equal scores pass a threshold together.
        num_targets: ground-truth boxes, > 0.
        percent: lowest precision in per cent.
    """
    last = np.flatnonzero(np.append(conf[1:] != conf[:-1], True)) if len(conf) else np.zeros(0, np.int64)
    hits = np.cumsum(tp)[last]
    precise = 100 * hits >= percent * (last + 1)  # in whole numbers: 9 of 10 is 90 %
    return float(hits[precise].max() / num_targets) if precise.any() else 0.0


def ap_of_sizes(metrics: DetMetrics, low: float, high: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return class ids (K,) and average precision (K, T) of objects with an area from `low` to `high` square pixels.

    The classes are those with ground truth of that size. The integral is that of `average_precision`.

    Raises:
        ValueError: the metrics were collected without boxes.
    """
    stats = metrics.stats
    tp, ignored, counted = match_sizes(stats, low, high)
    classes, num_targets = np.unique(stats["target_cls"][counted], return_counts=True)
    order = np.lexsort((-stats["conf"], stats["pred_cls"]))
    pred_cls, tp, ignored = stats["pred_cls"][order], tp[order], ignored[order]
    first, end = np.searchsorted(pred_cls, classes, "left"), np.searchsorted(pred_cls, classes, "right")
    ap = np.zeros((len(classes), tp.shape[1]))
    for k, rows in enumerate(map(slice, first, end)):
        for t in range(tp.shape[1]):
            right = tp[rows, t][~ignored[rows, t]]
            hits = np.cumsum(right)
            ap[k, t] = average_precision(hits / num_targets[k], hits / np.arange(1, len(hits) + 1))
    return classes, ap


def match_sizes(
    stats: Mapping[str, NDArray], low: float, high: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Match as COCO does for a range of areas: detections prefer ground truth of that size to all other.

    Args:
        stats: `DetMetrics.stats`.
        low, high: smallest and largest area that counts, in square pixels.

    Returns:
        tp (N, T) bool, ignored (N, T) bool: neither right nor wrong, counted (M,) bool: ground truth of that size.

    Raises:
        ValueError: the metrics were collected without boxes.
    """
    det, gt = stats["pred_box"], stats["target_box"]
    if np.isnan(det).any() or np.isnan(gt).any():
        raise ValueError("metrics by object size need boxes: give DetMetrics.update() pred_box and target_box.")
    counted = _within(gt, low, high)
    # Everyone looks at ground truth of that size first, so what is left over can be matched in a second round.
    tp = _match(stats, counted, None) >= 0
    leftover = _match(stats, ~counted, ~tp) >= 0
    # An area that was not annotated may hold an object of any size: whoever lies in it is excused at every size.
    ignored = leftover | (~tp & (stats["excused"] | ~_within(det, low, high)[:, None]))
    return tp, ignored, counted


def _match(stats: Mapping[str, NDArray], truth: NDArray[np.bool_], among: NDArray[np.bool_] | None) -> NDArray:
    det = stats["pred_box"], stats["conf"], stats["pred_cls"], stats["pred_img"]
    gt = stats["target_box"][truth], stats["target_cls"][truth], stats["target_img"][truth]
    return match_detections(*det, *gt, thresholds=IOU_THRESHOLDS, among=among)


def _within(boxes: NDArray, low: float, high: float) -> NDArray[np.bool_]:
    side = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    area = side[:, 0] * side[:, 1]
    return (area >= low) & (area <= high)


def class_curves(metrics: DetMetrics) -> list[tuple[NDArray, NDArray, int]]:
    """For each class with ground truth: tp (n,) at IoU 0.5 and scores (n,), best score first, and its boxes."""
    stats = metrics.stats
    order = np.lexsort((-stats["conf"], stats["pred_cls"]))
    order = order[~stats["excused"][order, 0]]
    pred_cls, tp, conf = stats["pred_cls"][order], stats["tp"][order, 0], stats["conf"][order]
    classes = metrics.box.ap_class_index
    first, end = np.searchsorted(pred_cls, classes, "left"), np.searchsorted(pred_cls, classes, "right")
    return [(tp[a:b], conf[a:b], int(metrics.nt_per_class[c])) for a, b, c in zip(first, end, classes, strict=True)]


def spread(values: NDArray, classes: NDArray, nc: int) -> list[float]:
    """Values of the classes that have some, as one value per class; nan for the others."""
    full = np.full(nc, np.nan)
    full[classes] = values
    return full.tolist()


def _with_mean(columns: list[str], values: NDArray, classes: NDArray, nc: int) -> dict[str, float]:
    mean = float(values.mean()) if len(values) else 0.0
    return dict(zip(columns, [mean, *spread(values, classes, nc)], strict=True))


def _pattern(name: str) -> tuple[str, int] | None:
    match = re.fullmatch(r"(recall_at_p|f1_at_conf)(\d{1,3})", name)
    if match is None:
        return None
    lowest, highest = {"recall_at_p": (1, 100), "f1_at_conf": (0, 99)}[match[1]]
    return (match[1], int(match[2])) if lowest <= int(match[2]) <= highest else None
