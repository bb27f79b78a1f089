"""The trainer of DEIM: phases of augmentation, a rate that is flat at first, and a second stage from the first's best.

The run is cut by two numbers of its plan, its epochs and ``close_mosaic``: stage 1, in which augmentation is on by
phases, and stage 2, the last ``close_mosaic`` epochs, which starts from the best weights of stage 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas import dist
from eyas.augment.policy import DensePolicy
from eyas.checkpoint import CheckpointError, load_checkpoint
from eyas.config import TrainOptions
from eyas.data.dataset import TrainDataset
from eyas.data.numbered import data_sets
from eyas.log import LOGGER
from eyas.optim.schedules import flat_cosine
from eyas.recipes import DEIM, Recipe
from eyas.run.plan import Plan
from eyas.train.components import Given
from eyas.train.rtdetr import RTDETRTrainer
from eyas.train.state import restore_networks

CALM_EPOCHS = 4  # at most, and at most a tenth of stage 1


@dataclass(frozen=True)
class Stages:
    """Epochs, 0-based, at which a run changes: everything is a function of these and of progress.

    Attributes:
        calm: strong augmentation begins.
        dense: images are no longer composed, and the rate begins to fall.
        second: stage 2 begins: no strong augmentation, the lowest rate; as many as the run has epochs for none.
    """

    calm: int
    dense: int
    second: int

    @classmethod
    def of(cls, epochs: int, last: int) -> Stages:
        """Return the stages of a run of so many epochs, of which the ``last`` are stage 2."""
        second = epochs - last
        calm = min(CALM_EPOCHS, second // 10)
        return cls(calm, calm + second // 2, second)


class DEIMTrainer(RTDETRTrainer):
    """Trains detectors of sets with more objects in an image; see ``RTDETRTrainer``.

    ``wdir/stage1.pt`` holds the whole state of the best epoch of stage 1, from which stage 2 begins.
    """

    recipe: Recipe = DEIM
    family: str = "deim"
    spoken: str = "DEIM"
    stages: Stages

    def __init__(
        self,
        cfg: TrainOptions | Mapping[str, Any] | str | Path | None = None,
        overrides: TrainOptions | Mapping[str, Any] | None = None,
        _callbacks: Given = None,
    ) -> None:
        super().__init__(cfg, overrides, _callbacks)
        if self.args.time is not None:
            raise ValueError(
                f"time={self.args.time:g} has no place in DEIM, whose stages are shares of a known length: give epochs."
            )

    # -- stages --------------------------------------------------------------------------------------------------------
    def make_plan(self) -> Plan:
        """Derive the run's plan and its stages, and tell the data set.

        Raises:
            ValueError: stage 2 would find no best weights, because nothing is measured before it.
        """
        plan = super().make_plan()
        self.stages = Stages.of(plan.epochs, plan.close_mosaic if self.closing_augmentation() else 0)
        refuse_unmeasured(self.stages, plan.epochs, self.args, measured=self.validates())
        for dataset in data_sets(self.train_loader):
            if isinstance(dataset, TrainDataset):
                dataset.policy = DensePolicy(self.stages.calm, self.stages.dense)
        return plan

    def lf(self, fraction: float) -> float:
        """Multiplier of all rates after this share of the run: 1, falling from the middle of stage 1 to its end."""
        if self.plan.schedule != "flat-cosine":
            return super().lf(fraction)
        flat, end = self.stages.dense / self.epochs, self.stages.second / self.epochs
        return flat_cosine(fraction, self.plan.lrf, flat=flat, end=end)

    def warm_up_done(self) -> float:
        """Share of the warm-up that is done with this batch, in (0, 1]: squared, so that it begins slowly."""
        return super().warm_up_done() ** 2

    # -- stage 2 from the best of stage 1 ------------------------------------------------------------------------------
    @property
    def snapshot(self) -> Path:
        """Where the best epoch of stage 1 is kept whole."""
        return self.wdir / "stage1.pt"

    def save_model(self) -> bool:
        """Keep an epoch of stage 1 whole if it is the best, then write what is due; see ``BaseTrainer``."""
        if self.best_epoch == self.epoch + 1 <= self.stages.second < self.epochs and dist.is_main():
            self.write(self.checkpoint(finished_epoch=True), self.snapshot)
        return super().save_model()

    def start_epoch_here(self) -> None:
        """Begin an epoch, the first of stage 2 from the best weights of stage 1."""
        if self.epoch == self.stages.second and self.start_step == 0:
            self.restart()
        super().start_epoch_here()

    def restart(self) -> None:
        """Take back network, average and optimizer of the best epoch of stage 1; the main process reads it for all.

        Raises:
            CheckpointError: the file is lost, or is not that epoch.
        """
        if not self.best_epoch:
            LOGGER.info("Stage 2 goes on from the last weights: no epoch of stage 1 was the best of anything.")
            return
        checkpoint: Any = dist.agree(self.read_snapshot() if dist.is_main() else None)
        restore_networks(self, checkpoint)
        LOGGER.info("Stage 2 begins from the best weights of stage 1, those of epoch %d.", checkpoint["epoch"] + 1)

    def read_snapshot(self) -> dict[str, Any]:
        """Return the best epoch of stage 1.

        Raises:
            CheckpointError: the file is lost, or is not that epoch.
        """
        if not self.snapshot.exists():
            raise CheckpointError(f"{self.snapshot} is gone, from which stage 2 begins; move a run with its folder.")
        checkpoint = load_checkpoint(self.snapshot)
        if checkpoint["epoch"] + 1 != self.best_epoch:
            raise CheckpointError(
                f"{self.snapshot} holds epoch {checkpoint['epoch'] + 1}, and the best one is {self.best_epoch}: it is "
                "of another run."
            )
        return checkpoint


def refuse_unmeasured(stages: Stages, epochs: int, args: TrainOptions, *, measured: bool) -> None:
    """Stop at the start if stage 2 cannot begin from the best weights of stage 1.

    Raises:
        ValueError: no validation runs in stage 1.
    """
    if stages.second == epochs or (measured and args.val and args.val_every <= stages.second):
        return
    why = f"val_every={args.val_every}" if measured and args.val else "val=False"
    raise ValueError(
        f"{why} leaves the {stages.second} epochs of stage 1 without a validation, and stage 2 begins from the best of "
        f"them. Validate in them, or give close_mosaic=0 for a training without stage 2."
    )
