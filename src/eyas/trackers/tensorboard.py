"""TensorBoard: event files in ``tensorboard/`` of the run folder (``tensorboard --logdir runs``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from eyas.trackers.base import Ended, Started, Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoard(Tracker):
    """A run that goes on hides what it has written of epochs that are trained again. Models stay in the run folder."""

    name: ClassVar[str] = "tensorboard"
    module: ClassVar[str] = "tensorboard"
    extra: ClassVar[str] = "tensorboard"
    writer: SummaryWriter

    def started(self, run: Started) -> str:
        from torch.utils.tensorboard.writer import SummaryWriter

        folder = run.folder / "tensorboard"
        self.writer = SummaryWriter(str(folder), purge_step=run.epoch + 1 if run.epoch else None)
        if not run.epoch:
            self.writer.add_text("options", as_code(run.options), 0)
            self.writer.add_text("plan", as_code(run.plan), 0)
        self.writer.flush()
        return str(folder.name)

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, number)
        self.writer.flush()

    def picture(self, epoch: int, path: Path) -> None:
        import cv2

        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is not None:
            self.writer.add_image(path.stem, image[:, :, ::-1].copy(), epoch, dataformats="HWC")

    def best_model(self, path: Path) -> None:
        self.writer.add_text("best model", str(path))

    def ended(self, run: Ended) -> None:
        for name, value in run.metrics.items():
            self.writer.add_scalar(f"best/{name.removeprefix('metrics/')}", value, run.best_epoch)
        if run.failure:
            self.writer.add_text("failure", run.failure, run.epoch)
        self.writer.close()


def as_code(values: Mapping[str, object]) -> str:
    """Return values as Markdown: a block of indented JSON."""
    return "".join(f"    {line}\n" for line in json.dumps(values, indent=1, default=str).splitlines())
