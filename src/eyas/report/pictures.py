"""Pictures of a run: what the model is fed, and how the numbers moved."""

from __future__ import annotations

from eyas.callbacks.base import Callback
from eyas.data.dataset import TrainDataset
from eyas.plot.images import save_train_batch
from eyas.plot.labels import save_labels_picture
from eyas.plot.results import save_results_picture
from eyas.run.protocol import Run

PICTURED_BATCHES = 3


class Pictures(Callback):
    """Draws ``train_batch*.jpg`` (the first, and the first without mosaic), ``labels.jpg`` and ``results.png``."""

    on = "main"

    def effects(self) -> dict[str, object]:
        """Return that it draws."""
        return {"plots": True}

    def on_train_start(self, trainer: Run) -> None:
        dataset = getattr(trainer.train_loader, "dataset", None)  # a user's own loader may read anything
        if isinstance(dataset, TrainDataset):
            index = dataset.index
            save_labels_picture(index.cls, index.boxes, trainer.data["names"], trainer.save_dir / "labels.jpg")

    def on_train_batch_end(self, trainer: Run) -> None:
        closing = trainer.epochs - trainer.closing_epochs()
        if trainer.step < PICTURED_BATCHES and trainer.epoch in (0, closing):
            number = trainer.epoch * len(trainer.train_loader) + trainer.step
            save_train_batch(trainer.save_dir / f"train_batch{number}.jpg", trainer.batch, trainer.data["names"])

    def on_train_end(self, trainer: Run) -> None:
        save_results_picture(trainer.csv, trainer.save_dir / "results.png")
