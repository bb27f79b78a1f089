"""Models: tables of layers, heads, post-processing and weights."""

from eyas.models.build import build_detector, detector_class
from eyas.models.catalog import MODELS, UnknownModelError, model_table, resolve_model
from eyas.models.detection import DetectionModel
from eyas.models.detector import Detector
from eyas.models.graph import ModelTableError
from eyas.models.heads import Detect
from eyas.models.postprocess import postprocess
from eyas.models.rtdetr.decoder import RTDETRDecoder
from eyas.models.rtdetr.model import RTDETRDetectionModel

__all__ = [
    "MODELS", "Detect", "DetectionModel", "Detector", "ModelTableError", "RTDETRDecoder", "RTDETRDetectionModel",
    "UnknownModelError", "build_detector", "detector_class", "model_table", "postprocess", "resolve_model",
]  # fmt: skip
