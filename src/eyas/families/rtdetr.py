"""RT-DETR: a set of queries, in the numbered layout and in that of its authors; images are stretched to the square."""

from eyas.families.family import Family
from eyas.models.rtdetr.model import RTDETRDetectionModel
from eyas.models.rtdetr.official import RTDETRNet
from eyas.train.rtdetr import RTDETRTrainer

RTDETR = Family("rtdetr", detectors=(RTDETRDetectionModel, RTDETRNet), trainer=RTDETRTrainer)
