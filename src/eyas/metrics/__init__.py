"""Detection metrics on flat NumPy arrays: matching, average precision, confusion matrix, COCO's twelve numbers, and
metrics by name: F1, AP by size, recall at a precision."""

from __future__ import annotations

from eyas.metrics.average_precision import APResult, ap_per_class, average_precision
from eyas.metrics.confusion import ConfusionMatrix
from eyas.metrics.detection import FITNESS_WEIGHTS, METRIC_KEYS, BoxMetrics, DetMetrics, fitness
from eyas.metrics.extra import (
    F1,
    MAP75,
    METRIC_NAMES,
    APBySize,
    APPerClass,
    Metric,
    RecallAtPrecision,
    metric_named,
)
from eyas.metrics.matching import IOU_THRESHOLDS, match_detections, match_iou_matrix

__all__ = [
    "F1",
    "FITNESS_WEIGHTS",
    "IOU_THRESHOLDS",
    "MAP75",
    "METRIC_KEYS",
    "METRIC_NAMES",
    "APBySize",
    "APPerClass",
    "APResult",
    "BoxMetrics",
    "ConfusionMatrix",
    "DetMetrics",
    "Metric",
    "RecallAtPrecision",
    "ap_per_class",
    "average_precision",
    "fitness",
    "match_detections",
    "match_iou_matrix",
    "metric_named",
]
