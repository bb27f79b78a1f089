"""Models: tables of layers, heads, post-processing and weights."""

from eyas.models.catalog import MODELS, build_detector, detector_class, load_weights, model_table, resolve_model
from eyas.models.detection import DetectionModel
from eyas.models.detector import Detector
from eyas.models.heads import Detect
from eyas.models.postprocess import postprocess
from eyas.models.rebuild import network_from
from eyas.models.rtdetr.decoder import RTDETRDecoder
from eyas.models.rtdetr.model import RTDETRDetectionModel
from eyas.models.table import ModelTableError, UnknownModelError

__all__ = [
    "MODELS", "Detect", "DetectionModel", "Detector", "ModelTableError", "RTDETRDecoder", "RTDETRDetectionModel",
    "UnknownModelError", "build_detector", "detector_class", "load_weights", "model_table", "network_from",
    "postprocess",
    "resolve_model",
]  # fmt: skip
