"""Batch normalisation over the images of all processes: by an option, by a component, or by converting the model.

    python examples/sync_batchnorm.py

Two processes on this machine's CPU stand for two GPUs (device=[0, 1]). What is defined in this file travels to them.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from eyas import YOLO, DetectionTrainer
from eyas.callbacks import SyncBatchNorm

TINY = {"data": "digits-tiny", "imgsz": 64, "fraction": 0.25, "batch": 8, "epochs": 1, "workers": 0}
QUIET = {"plots": False, "verbose": False}
# SGD, because the first steps of Adam have the size of the rate whatever the gradient, and so magnify rounding.
ONE: dict[str, Any] = {"device": "cpu", "optimizer": "SGD", "lr0": 0.01}
TWO: dict[str, Any] = ONE | {"processes": 2}


class Synchronised(DetectionTrainer):
    """Runs on the device and before the model is wrapped; torch's conversion works on a CPU here, too."""

    def set_model_attributes(self) -> None:
        super().set_model_attributes()
        if self.world_size > 1:
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)


def main() -> None:
    """Go through each door and show that two processes train as one would on all images."""
    alone = YOLO("yolo26n").train(**ONE, **TINY, **QUIET)
    # The option sync_bn=True is the same object as this component.
    component = YOLO("yolo26n").train(callbacks=[SyncBatchNorm(True)], **TWO, **TINY, **QUIET)
    override = YOLO("yolo26n").train(trainer=Synchronised, **TWO, **TINY, **QUIET)

    losses = [run.history[0]["train/box_loss"] for run in (alone, component, override)]
    print(f"box loss of one process {losses[0]}, of two {losses[1]}")
    assert losses[1] == losses[2]
    assert abs(losses[0] - losses[1]) < 1e-3


if __name__ == "__main__":
    main()
