"""The trainer of DINO: that of RT-DETR with numbers of its own, and images that keep their aspect."""

from __future__ import annotations

from typing import Any

from eyas.recipes import DINO, Recipe
from eyas.train.rtdetr import RTDETRTrainer


class DINOTrainer(RTDETRTrainer):
    """Trains detectors that see which part of their input is image; see ``RTDETRTrainer``."""

    recipe: Recipe = DINO
    family: str = "dino"
    stretch: bool = False
    spoken: str = "DINO"

    @staticmethod
    def table_to_train(cfg: Any, from_scratch: bool) -> dict[str, Any]:
        """Return the model's table; random weights are all trained, where given ones keep what was frozen."""
        table = RTDETRTrainer.table_to_train(cfg, from_scratch)
        return table | {"freeze_p2": False} if from_scratch else table
