"""Pictures of a run: what the model is fed, and how the numbers moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eyas.callbacks.base import Callback
from eyas.data.dataset import TrainDataset
from eyas.plot.images import save_train_batch
from eyas.plot.labels import save_labels_picture
from eyas.plot.results import save_results_picture

if TYPE_CHECKING:
    from eyas.train.trainer import BaseTrainer

PICTURED_BATCHES = 3


class Pictures(Callback):
    """Draws ``train_batch*.jpg`` (the first, and the first without mosaic), ``labels.jpg`` and ``results.png``."""

    on = "main"

    def on_train_start(self, trainer: BaseTrainer) -> None:
        dataset = trainer.train_loader.dataset
        if isinstance(dataset, TrainDataset):
            index = dataset.index
            save_labels_picture(index.cls, index.boxes, trainer.data["names"], trainer.save_dir / "labels.jpg")

    def on_train_batch_end(self, trainer: BaseTrainer) -> None:
        closing = trainer.epochs - trainer.plan.close_mosaic
        if trainer.step < PICTURED_BATCHES and trainer.epoch in (0, closing):
            number = trainer.epoch * len(trainer.train_loader) + trainer.step
            save_train_batch(trainer.save_dir / f"train_batch{number}.jpg", trainer.batch, trainer.data["names"])

    def on_train_end(self, trainer: BaseTrainer) -> None:
        save_results_picture(trainer.csv, trainer.save_dir / "results.png")
