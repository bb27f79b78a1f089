"""Let the head settle before the backbone may move: by an option, by a component, or by a function of the epoch.

    python examples/freeze_then_unfreeze.py

Useful when the backbone comes with good weights and the head does not: gradients of a fresh head would spoil them.
"""

from __future__ import annotations

from typing import Any

from eyas import YOLO
from eyas.callbacks import Freeze
from eyas.optim import unwrap_model

TINY = {"data": "digits-tiny", "imgsz": 64, "fraction": 0.25, "batch": 8, "epochs": 2, "workers": 0}
QUIET = {"plots": False, "verbose": False}
FROZEN_EPOCHS = 1


def freeze_at_first(trainer: Any) -> None:
    """Runs at the start of every epoch: what is frozen follows from the epoch alone, so that a resumed run agrees."""
    frozen = trainer.epoch < FROZEN_EPOCHS
    model: Any = unwrap_model(trainer.model)
    backbone = model.sections()["backbone"]  # prefixes of parameter names; no counting of layers
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (frozen and name.startswith(backbone)))
    trainer.freeze_layer_names = list(backbone) if frozen else []  # normalisation in these keeps its statistics


def main() -> None:
    """Go through each door and show that it is the same training."""
    option = YOLO("yolo26n").train(freeze="backbone", freeze_epochs=FROZEN_EPOCHS, **TINY, **QUIET)
    component = YOLO("yolo26n").train(callbacks=[Freeze("backbone", epochs=FROZEN_EPOCHS)], **TINY, **QUIET)
    model = YOLO("yolo26n")
    model.add_callback("on_train_epoch_start", freeze_at_first)
    by_hand = model.train(**TINY, **QUIET)

    losses = [[row["train/box_loss"] for row in run.history] for run in (option, component, by_hand)]
    print(f"box loss by epoch {losses[0]}, the backbone frozen in the first {FROZEN_EPOCHS}")
    assert losses[0] == losses[1] == losses[2]


if __name__ == "__main__":
    main()
