"""THE loop, what is set up before it, what it saves, and the trainers built on it."""

from eyas.train.deim import DEIMTrainer
from eyas.train.detection import DetectionTrainer
from eyas.train.dfine import DFineTrainer
from eyas.train.dino import DINOTrainer
from eyas.train.result import TrainResult
from eyas.train.rtdetr import RTDETRTrainer
from eyas.train.trainer import BaseTrainer

__all__ = [
    "BaseTrainer", "DEIMTrainer", "DFineTrainer", "DINOTrainer", "DetectionTrainer", "RTDETRTrainer", "TrainResult",
]  # fmt: skip
