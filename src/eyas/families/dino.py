"""DINO: learnt queries and an encoder that looks at all maps; images keep their aspect, and padding is masked."""

from eyas.families.family import Family
from eyas.models.dino.net import DINONet
from eyas.train.dino import DINOTrainer

DINO = Family("dino", detectors=(DINONet,), trainer=DINOTrainer)
