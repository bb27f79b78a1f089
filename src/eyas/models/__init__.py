"""Models: tables of layers, heads, post-processing and weights."""

from eyas.models.catalog import MODELS, UnknownModelError, model_table, resolve_model
from eyas.models.detection import DetectionModel
from eyas.models.graph import ModelTableError
from eyas.models.heads import Detect
from eyas.models.postprocess import postprocess

__all__ = [
    "MODELS", "Detect", "DetectionModel", "ModelTableError", "UnknownModelError", "model_table", "postprocess",
    "resolve_model",
]  # fmt: skip
