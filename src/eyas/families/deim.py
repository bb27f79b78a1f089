"""DEIM: the networks of D-FINE and RT-DETRv2, trained with more objects in an image; stretched to the square."""

from eyas.families.family import Family
from eyas.models.deim.model import DEIMFineNet, DEIMSetNet
from eyas.train.deim import DEIMTrainer

DEIM = Family("deim", detectors=(DEIMFineNet, DEIMSetNet), trainer=DEIMTrainer)
