"""Limit the norm of gradients: by an option, by a component, or by overriding optimizer_step().

    python examples/clip_gradients.py

The default of YOLO is 10, which rarely clips; detectors with a transformer decoder are trained with 0.1.
"""

from __future__ import annotations

from torch import nn

from eyas import YOLO, DetectionTrainer
from eyas.callbacks import ClipGradNorm

TINY = {"data": "digits-tiny", "imgsz": 64, "fraction": 0.25, "batch": 8, "epochs": 2, "workers": 0}
QUIET = {"plots": False, "verbose": False}
MAX_NORM = 0.1


class MyStep(DetectionTrainer):
    """One step of the optimizer: gradients are complete here, and still multiplied by the scaler's factor."""

    def optimizer_step(self) -> None:
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=MAX_NORM, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(self.model)


def main() -> None:
    """Go through each door and show that it is the same training."""
    loose = YOLO("yolo26n").train(optimizer="SGD", **TINY, **QUIET)  # the norm matters most to plain SGD
    option = YOLO("yolo26n").train(optimizer="SGD", clip_grad_norm=MAX_NORM, **TINY, **QUIET)
    component = YOLO("yolo26n").train(optimizer="SGD", callbacks=[ClipGradNorm(MAX_NORM)], **TINY, **QUIET)
    override = YOLO("yolo26n").train(optimizer="SGD", trainer=MyStep, **TINY, **QUIET)

    losses = [[row["train/box_loss"] for row in run.history] for run in (loose, option, component, override)]
    print(f"box loss by epoch with norms up to 10 {losses[0]}, up to {MAX_NORM} {losses[1]}")
    assert losses[0] != losses[1] == losses[2] == losses[3]


if __name__ == "__main__":
    main()
