"""Pictures of a run: what the model is fed, and how the numbers moved."""

from __future__ import annotations

from eyas.callbacks.base import Callback
from eyas.data.dataset import TrainDataset
from eyas.plot.images import save_train_batch
from eyas.plot.labels import save_labels_picture
from eyas.plot.results import save_results_picture
from eyas.run.protocol import Run
from eyas.types import Batch

PICTURED_BATCHES = 3


class Pictures(Callback):
    """Asks for ``train_batch*.jpg`` (the first, and the first without mosaic), ``labels.jpg`` and ``results.png``."""

    on = "main"

    def effects(self) -> dict[str, object]:
        """Return that it draws."""
        return {"plots": True}

    def on_train_start(self, trainer: Run) -> None:
        trainer.plot_training_labels()

    def on_train_batch_end(self, trainer: Run) -> None:
        closing = trainer.epochs - trainer.closing_epochs()
        if trainer.step < PICTURED_BATCHES and trainer.epoch in (0, closing):
            number = trainer.epoch * len(trainer.train_loader) + trainer.step
            trainer.plot_training_samples(trainer.batch, number)

    def on_train_end(self, trainer: Run) -> None:
        trainer.plot_metrics()


def draw_samples(run: Run, batch: Batch, number: int) -> None:
    """Write ``train_batch<number>.jpg``."""
    save_train_batch(run.save_dir / f"train_batch{number}.jpg", batch, run.data["names"])


def draw_labels(run: Run) -> None:
    """Write ``labels.jpg``, of a data set of ours: a user's own loader may read anything."""
    dataset = getattr(run.train_loader, "dataset", None)
    if isinstance(dataset, TrainDataset):
        index = dataset.index
        save_labels_picture(index.cls, index.boxes, run.data["names"], run.save_dir / "labels.jpg")


def draw_metrics(run: Run) -> None:
    """Write ``results.png``, the curves of ``results.csv``; a user's own ``save_metrics()`` may have written none."""
    if run.csv.exists():
        save_results_picture(run.csv, run.save_dir / "results.png")
