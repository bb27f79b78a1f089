"""Weigh classes in the loss: by an option, by a component, or by giving the model its weights.

    python examples/class_weights.py

Sevens count three times as much as other digits. Weights by rule, such as class_weights="balanced", follow the number
of objects of each class; those are scaled so that the mean over all objects is 1, unless asked not to, as here.
"""

from __future__ import annotations

from typing import Any

import torch

from eyas import YOLO, DetectionTrainer
from eyas.callbacks import ClassWeights

TINY = {"data": "digits-tiny", "imgsz": 64, "fraction": 0.25, "batch": 8, "epochs": 2, "workers": 0}
QUIET = {"plots": False, "verbose": False}


class SevensMatter(DetectionTrainer):
    """Gives the model its weights; every classification loss built from the model applies them."""

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        model: Any = super().get_model(cfg, weights, verbose)
        model.class_weights = torch.ones(model.nc)
        model.class_weights[7] = 3.0
        return model


def main() -> None:
    """Go through each door and show that it is the same training."""
    plain = YOLO("yolo26n").train(**TINY, **QUIET)
    option = YOLO("yolo26n").train(class_weights={"7": 3.0}, class_weights_normalize=False, **TINY, **QUIET)
    component = YOLO("yolo26n").train(callbacks=[ClassWeights({"7": 3.0}, normalize=False)], **TINY, **QUIET)
    override = YOLO("yolo26n").train(trainer=SevensMatter, **TINY, **QUIET)

    losses = [[row["train/cls_loss"] for row in run.history] for run in (plain, option, component, override)]
    print(f"class loss without weights {losses[0][-1]:.3f}, with weights {losses[1][-1]:.3f}")
    assert losses[0] != losses[1] == losses[2] == losses[3]


if __name__ == "__main__":
    main()
