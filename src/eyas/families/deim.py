"""DEIM: networks of D-FINE and RT-DETRv2, of DEIMv2 and ECDet, trained with more objects in an image; stretched."""

from eyas.families.family import Family
from eyas.models.deim.model import DEIMFineNet, DEIMSetNet
from eyas.models.deim.v2 import DEIMv2Net, ECDetNet
from eyas.train.deim import DEIMTrainer

DEIM = Family("deim", detectors=(DEIMFineNet, DEIMSetNet, DEIMv2Net, ECDetNet), trainer=DEIMTrainer)
