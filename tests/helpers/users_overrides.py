"""Overrides of the seven needs as a user would write them, for trainers of either family to inherit."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import nn

from eyas.optim import unwrap_model
from eyas.train import DetectionTrainer


class AddsF1(DetectionTrainer):
    """Adds F1 under the names that the shipped metric has."""

    def validate(self) -> Any:
        metrics, fitness = super().validate()
        box = self.validator.metrics.box
        by_class = np.full(self.data["nc"], np.nan)
        by_class[box.ap_class_index] = box.f1
        stem = "metrics/F1@iou0.5_best"
        f1 = {f"{stem}({name})": by_class[i] for i, name in self.data["names"].items()}
        return metrics | {f"{stem}(B)": box.f1.mean()} | f1, fitness


class ChoosesByClassLoss(DetectionTrainer):
    """Chooses by the class loss on the validation split: lower is better, so its negative is the fitness."""

    def validate(self) -> Any:
        metrics, _ = super().validate()
        return metrics, -metrics["val/cls_loss"]


class Synchronises(DetectionTrainer):
    """Converts by torch's own function, whatever the number of processes."""

    def set_model_attributes(self) -> None:
        super().set_model_attributes()
        self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)


class ClipsItself(DetectionTrainer):
    """README's: writes the whole step, so nothing of the stock clipping is left."""

    largest: ClassVar[float]

    def optimizer_step(self) -> None:
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=self.largest)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(self.model)


def freeze_at_first(trainer: Any) -> None:
    """Freeze the backbone in the first epoch: a plain function for ``on_train_epoch_start``."""
    model: Any = unwrap_model(trainer.model)
    backbone, frozen = model.sections()["backbone"], trainer.epoch < 1
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (frozen and name.startswith(backbone)))
    trainer.freeze_layer_names = [".dfl", *backbone] if frozen else [".dfl"]


class IgnoresSevens(DetectionTrainer):
    """Objects of the class "7" are areas to ignore."""

    def get_dataset(self) -> dict[str, Any]:
        data = super().get_dataset()
        data["ignore"] = ["7"]
        return data
