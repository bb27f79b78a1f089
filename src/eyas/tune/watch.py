"""What tells a study how a trial goes.

What: reports a number after each validation, and ends a trial whose number is worse than the median of those before at
the same epoch. When: from a fifth of its epochs on, and never after the last. Default: in every trial of ``eyas tune``;
``prune=false`` only reports. Hazards: a recipe that learns late looks worse than it is.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from eyas.callbacks.base import Callback
from eyas.callbacks.criterion import Criterion
from eyas.run.protocol import Run
from eyas.tune.storage import StudyFile, opened

WARM_UP = 0.2
"""Share of a trial's epochs in which it is not given up: rates still grow there, and values are mostly noise."""


class Watch(Callback):
    """Reports to the study, and stops the run as early stopping does where the study gives it up.

    Args:
        metric, mode: as for ``BestBy``.
        file: the study.
        number: of the trial in it.
        prune: whether the study may give it up.
        record: the study, where it is open in this process; opened for each report otherwise.

    Attributes:
        seen: epoch, from 1 on -> value of the metric.
        pruned: whether it was given up.

    It travels into the processes of a training on several GPUs, and what it has seen comes back.
    """

    decides = "giving up a trial"
    on = "main"

    def __init__(
        self, metric: str, mode: str | None, file: Path, number: int, prune: bool, record: StudyFile | None = None
    ) -> None:
        self.criterion = Criterion(metric, mode)
        self.record = record
        self.file, self.number, self.prune = str(file), number, prune
        self.seen: dict[int, float] = {}
        self.pruned = False

    def on_pretrain_routine_end(self, trainer: Run) -> None:
        self.criterion.resolve(trainer, "metric")

    def adjust_metrics(self, trainer: Run, metrics: dict[str, float]) -> dict[str, float]:
        return self.criterion.add_to(trainer, metrics)

    def on_val_end(self, trainer: Run) -> None:
        epoch = trainer.epoch + 1
        self.seen[epoch] = value = self.criterion.value(trainer, trainer.fitness, "metric")
        if math.isfinite(value):
            given_up = self.report(epoch, value)
            self.pruned = self.prune and given_up and WARM_UP * trainer.epochs < epoch < trainer.epochs
        trainer.stop = trainer.stop or self.pruned

    def report(self, epoch: int, value: float) -> bool:
        """Tell the study a value, and return whether it would give the trial up."""
        here = opened(Path(self.file), self.criterion.mode) if self.record is None else nullcontext(self.record)
        with here as record:
            trial = record.trial(self.number)
            trial.report(value, epoch)
            return trial.should_prune()

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels: not the open file."""
        return vars(self) | {"record": None}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": {str(epoch): value for epoch, value in self.seen.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = {int(epoch): value for epoch, value in state["seen"].items()}
