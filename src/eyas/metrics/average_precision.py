"""Average precision and the confidence curves behind precision, recall and F1 (spec core F.3, F.4).

Legend: N detections, M ground-truth boxes, K classes that have ground truth, T IoU thresholds.

The AP here is the trapezoid integral of the interpolated precision at 101 recalls. COCO's own AP is the plain mean of
the precision read (without interpolation between points) at the same recalls. With identical matches the two differ by
less than 0.006; in a large set by about 0.01 AP - 0.005, since the ends of the trapezoid weigh half: nothing at AP 0.5,
and a perfect detector scores 0.995 here. `eyas.metrics.coco` has the other definition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RECALL_GRID: NDArray[np.float64] = np.linspace(0, 1, 101)
CONFIDENCE_GRID: NDArray[np.float64] = np.linspace(0, 1, 1000)
RECALL_GRID.setflags(write=False)
CONFIDENCE_GRID.setflags(write=False)

SMOOTHING_POINTS = 101
"""Width of the box filter over the mean F1 curve, in points of `CONFIDENCE_GRID`: about 0.1 of confidence."""


@dataclass(frozen=True)
class APResult:
    """Per-class results; row k belongs to class `ap_class_index[k]`. All values in [0, 1].

    Attributes:
        ap_class_index: (K,) ids of the classes that have ground truth, ascending.
        p, r, f1: (K,) at IoU 0.5 (the first threshold) and the confidence `best_conf`.
        ap: (K, T) average precision per IoU threshold.
        px: (1000,) the x axis of the curves.
        p_curve, r_curve, f1_curve: (K, 1000) over confidence `px`, at IoU 0.5.
        prec_values: (K, 1000) precision over recall `px`, at IoU 0.5.
        best_conf: the confidence at which the smoothed mean F1 is highest; 0 without any ground truth.
    """

    ap_class_index: NDArray[np.int64]
    p: NDArray[np.float64]
    r: NDArray[np.float64]
    f1: NDArray[np.float64]
    ap: NDArray[np.float64]
    px: NDArray[np.float64]
    p_curve: NDArray[np.float64]
    r_curve: NDArray[np.float64]
    f1_curve: NDArray[np.float64]
    prec_values: NDArray[np.float64]
    best_conf: float


def average_precision(recall: NDArray, precision: NDArray) -> float:
    """Area under one precision-recall curve (spec core F.3).

    Args:
        recall: (N,) ascending in [0, 1], one point per detection in descending score; may be empty.
        precision: (N,) in [0, 1].

    Returns:
        AP in [0, 1].
    """
    if len(recall) == 0:
        return 0.0
    return float(np.trapezoid(_interpolated(recall, _running_max(precision), RECALL_GRID), RECALL_GRID))


def ap_per_class(
    tp: NDArray, conf: NDArray, pred_cls: NDArray, target_cls: NDArray, excused: NDArray | None = None
) -> APResult:
    """Average precision of every class that has ground truth.

    Args:
        tp: (N, T) bool, detection correct at each IoU threshold; the first threshold is the one of p, r and F1.
        conf: (N,) scores in [0, 1].
        pred_cls: (N,) class ids.
        target_cls: (M,) class ids of all ground truth.
        excused: (N, T) bool, detections that are neither right nor wrong at each threshold; None for none.

    Returns:
        An `APResult`; classes without ground truth are left out, classes without detections are zero.
    """
    tp, conf = np.asarray(tp), np.asarray(conf, np.float64)
    classes, num_targets = np.unique(np.asarray(target_cls).astype(np.int64), return_counts=True)
    order = np.lexsort((-conf, pred_cls))
    tp, conf, pred_cls = tp[order], conf[order], np.asarray(pred_cls)[order]
    judged = np.ones_like(tp, bool) if excused is None else ~excused[order]
    first, end = np.searchsorted(pred_cls, classes, side="left"), np.searchsorted(pred_cls, classes, side="right")

    ap = np.zeros((len(classes), tp.shape[1]))
    p_curve, r_curve, prec_values = (np.zeros((len(classes), len(CONFIDENCE_GRID))) for _ in range(3))
    for k, rows in enumerate(map(slice, first, end)):
        for t in range(tp.shape[1]):
            kept = judged[rows, t]
            if not kept.any():
                continue
            hits = np.cumsum(tp[rows, t][kept], dtype=np.float64)
            recall = hits / (num_targets[k] + 1e-16)
            precision = hits / np.arange(1, len(hits) + 1)
            envelope = _running_max(precision)
            ap[k, t] = np.trapezoid(_interpolated(recall, envelope, RECALL_GRID), RECALL_GRID)
            if t == 0:
                r_curve[k] = np.interp(-CONFIDENCE_GRID, -conf[rows][kept], recall, left=0)
                p_curve[k] = np.interp(-CONFIDENCE_GRID, -conf[rows][kept], precision, left=1)
                prec_values[k] = _interpolated(recall, envelope, CONFIDENCE_GRID)

    f1_curve = 2 * p_curve * r_curve / (p_curve + r_curve + 1e-16)
    best = int(smooth(f1_curve.mean(axis=0), SMOOTHING_POINTS).argmax()) if len(classes) else 0
    return APResult(
        ap_class_index=classes,
        p=p_curve[:, best],
        r=r_curve[:, best],
        f1=f1_curve[:, best],
        ap=ap,
        px=CONFIDENCE_GRID,
        p_curve=p_curve,
        r_curve=r_curve,
        f1_curve=f1_curve,
        prec_values=prec_values,
        best_conf=float(CONFIDENCE_GRID[best]),
    )


def smooth(values: NDArray, points: int) -> NDArray[np.float64]:
    """Centred box filter of an odd number of points; the first and last value stand in for what lies outside."""
    assert points % 2 == 1, "a centred filter has an odd number of points"
    padded = np.pad(np.asarray(values, np.float64), points // 2, mode="edge")
    return np.convolve(padded, np.full(points, 1 / points), mode="valid")


def _running_max(precision: NDArray) -> NDArray[np.float64]:
    """Precision made non-increasing along axis 0: the best precision at this recall or a higher one."""
    return np.flip(np.maximum.accumulate(np.flip(precision, axis=0), axis=0), axis=0)


def _interpolated(recall: NDArray, envelope: NDArray, at: NDArray) -> NDArray[np.float64]:
    """Linear interpolation of the envelope; it starts at (recall 0, precision 1) and drops to 0 at the last recall."""
    return np.interp(at, np.r_[0.0, recall, recall[-1], 1.0], np.r_[1.0, envelope, 0.0, 0.0])
