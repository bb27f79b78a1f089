"""YOLO26: anchor-free, without NMS where wanted; images keep their aspect."""

from eyas.families.family import Family
from eyas.models.detection import DetectionModel
from eyas.train.detection import DetectionTrainer

YOLO26 = Family("yolo26", detectors=(DetectionModel,), trainer=DetectionTrainer)
