"""Eyas trains object detectors, and its heart is the trainer you can change.

    from eyas import YOLO
    YOLO("yolo26n").train(data="digits", imgsz=128)

The names below are imported when they are first used, so that `import eyas` is quick and has no side effect.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from eyas.api import RTDETR, YOLO
    from eyas.callbacks import Callback
    from eyas.config import TrainOptions
    from eyas.evaluate import DetectionValidator
    from eyas.models import DetectionModel, RTDETRDetectionModel
    from eyas.train import BaseTrainer, DEIMTrainer, DetectionTrainer, DFineTrainer, RTDETRTrainer

_HOME = {
    "RTDETR": "eyas.api",
    "YOLO": "eyas.api",
    "Callback": "eyas.callbacks",
    "TrainOptions": "eyas.config",
    "DetectionValidator": "eyas.evaluate",
    "DetectionModel": "eyas.models",
    "RTDETRDetectionModel": "eyas.models",
    "BaseTrainer": "eyas.train",
    "DEIMTrainer": "eyas.train",
    "DFineTrainer": "eyas.train",
    "DetectionTrainer": "eyas.train",
    "RTDETRTrainer": "eyas.train",
}

__all__ = [
    "RTDETR",
    "YOLO",
    "BaseTrainer",
    "Callback",
    "DEIMTrainer",
    "DFineTrainer",
    "DetectionModel",
    "DetectionTrainer",
    "DetectionValidator",
    "RTDETRDetectionModel",
    "RTDETRTrainer",
    "TrainOptions",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'eyas' has no attribute {name!r}; it has: {', '.join(sorted(_HOME))}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
