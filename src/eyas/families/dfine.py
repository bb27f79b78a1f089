"""D-FINE: a set of queries whose boxes have distributions for edges; images are stretched to the square."""

from eyas.families.family import Family
from eyas.models.dfine.model import DFineNet
from eyas.train.dfine import DFineTrainer

DFINE = Family("dfine", detectors=(DFineNet,), trainer=DFineTrainer)
