"""Detection metrics on flat NumPy arrays: matching, average precision, confusion matrix, COCO's twelve numbers."""

from __future__ import annotations

from eyas.metrics.average_precision import APResult, ap_per_class, average_precision
from eyas.metrics.confusion import ConfusionMatrix
from eyas.metrics.detection import FITNESS_WEIGHTS, METRIC_KEYS, BoxMetrics, DetMetrics, fitness
from eyas.metrics.matching import IOU_THRESHOLDS, match_detections, match_iou_matrix

__all__ = [
    "FITNESS_WEIGHTS",
    "IOU_THRESHOLDS",
    "METRIC_KEYS",
    "APResult",
    "BoxMetrics",
    "ConfusionMatrix",
    "DetMetrics",
    "ap_per_class",
    "average_precision",
    "fitness",
    "match_detections",
    "match_iou_matrix",
]
