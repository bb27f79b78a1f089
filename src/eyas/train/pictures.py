"""Pictures of a run: what the model is fed, and how the numbers moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eyas.callbacks.base import Callback

if TYPE_CHECKING:
    from eyas.train.trainer import BaseTrainer

PICTURED_BATCHES = 3


class Pictures(Callback):
    """Draws ``train_batch*.jpg`` (the first batches, and the first without mosaic), ``labels.jpg`` and ``results.png``."""

    def on_train_start(self, trainer: BaseTrainer) -> None:
        from eyas.plot.labels import save_label_picture

        index = getattr(trainer.train_loader.dataset, "index", None)
        if index is not None:
            save_label_picture(trainer.save_dir / "labels.jpg", index.cls, index.boxes, trainer.data["names"])

    def on_train_batch_start(self, trainer: BaseTrainer) -> None:
        """Nothing: the batch is drawn once it is on its way, see ``on_train_batch_end``."""

    def on_train_batch_end(self, trainer: BaseTrainer) -> None:
        if self.is_due(trainer):
            self.draw_batch(trainer)

    def is_due(self, trainer: BaseTrainer) -> bool:
        """Whether this batch is among the first of the run or the first after mosaic was closed."""
        closing = trainer.epochs - trainer.plan.close_mosaic
        return trainer.step < PICTURED_BATCHES and trainer.epoch in (0, closing)

    def draw_batch(self, trainer: BaseTrainer) -> None:
        """Write a picture of the batch as the model saw it."""
        from eyas.plot.images import save_batch_picture

        batch = trainer.batch
        number = trainer.epoch * len(trainer.train_loader) + trainer.step
        height, width = batch["img"].shape[-2:]
        boxes = cxcywh_to_xyxy(batch["bboxes"].cpu()).numpy() * [width, height, width, height]
        save_batch_picture(
            trainer.save_dir / f"train_batch{number}.jpg",
            (batch["img"] * 255).byte().cpu().numpy(),
            boxes=boxes,
            cls=batch["cls"].view(-1).long().cpu().numpy(),
            image=batch["batch_idx"].long().cpu().numpy(),
            score=None,
            names=trainer.data["names"],
            titles=batch["im_file"],
        )

    def on_train_end(self, trainer: BaseTrainer) -> None:
        from eyas.plot.results import save_results_picture

        save_results_picture(trainer.csv, trainer.save_dir / "results.png")
