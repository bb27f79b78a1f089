"""The trainer of D-FINE: that of RT-DETR with numbers of its own."""

from __future__ import annotations

from eyas.recipes import DFINE, Recipe
from eyas.train.rtdetr import RTDETRTrainer


class DFineTrainer(RTDETRTrainer):
    """Trains detectors whose boxes have distributions for edges; see ``RTDETRTrainer``."""

    recipe: Recipe = DFINE
    family: str = "dfine"
    spoken: str = "D-FINE"
