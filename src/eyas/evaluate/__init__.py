"""Running a model on images: the one validator, and prediction."""

from __future__ import annotations

from eyas.evaluate.predictor import Predictor
from eyas.evaluate.results import Boxes, Results
from eyas.evaluate.validator import DetectionValidator

__all__ = ["Boxes", "DetectionValidator", "Predictor", "Results"]
