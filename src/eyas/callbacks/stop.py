"""Early stopping.

What: ends the run when a number has not become better for a while. When: after each validation; epochs are counted,
not validations. Default: 100 epochs without a better fitness, which is whatever chooses ``best.pt``. Hazards: a rate
that still falls often brings a late gain; with a patience much below a third of the run it is never seen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from eyas.callbacks.base import Decision, StockCallback
from eyas.callbacks.criterion import Criterion, Function
from eyas.config.errors import refuse_unknown
from eyas.run.protocol import Run

if TYPE_CHECKING:
    from eyas.config import TrainOptions


def out_of_patience(epoch: int, best_epoch: int, patience: int) -> bool:
    """Whether a validated epoch (1-based) lies ``patience`` epochs behind the best one; 0 never stops."""
    return patience > 0 and epoch - best_epoch >= patience


class EarlyStop(StockCallback):
    """Stop the run when a metric has not improved for ``patience`` epochs.

    Args:
        metric: key, short name or function, as for `BestBy`; ``"fitness"`` is what chooses ``best.pt``.
        mode: ``"max"`` or ``"min"``; None takes min for a loss and max for everything else.
        patience: epochs without improvement; 0 never stops.
        min_delta: improvements of at most this do not count, >= 0.
        start: epochs at the beginning that are not looked at.

    Waiting begins with the first finite value after ``start``: an epoch that cannot be the best (``start`` of
    `BestBy`) is not one without improvement.
    """

    decides = Decision.STOP
    options = ("patience", "stop")

    def __init__(
        self,
        metric: str | Function = "fitness",
        mode: str | None = None,
        patience: int = 100,
        min_delta: float = 0.0,
        start: int = 0,
    ) -> None:
        for name, value in (("patience", patience), ("start", start)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"EarlyStop: {name}={value!r} must be a whole number of epochs.")
        if isinstance(min_delta, bool) or not isinstance(min_delta, int | float) or not 0 <= min_delta < float("inf"):
            raise ValueError(f"EarlyStop: min_delta={min_delta!r} must be a number from 0 up.")
        self.criterion = Criterion(metric, mode)
        self.patience = patience
        self.min_delta = float(min_delta)
        self.start = start
        self.best: float | None = None
        self.best_epoch = 0
        self.last: tuple[int, float] | None = None

    @classmethod
    def from_options(cls, options: TrainOptions) -> EarlyStop:
        """Return the component of ``stop``, or the stock rule with ``patience``.

        Raises:
            ValueError: unknown key in ``stop``.
        """
        if not options.stop:
            return cls(patience=options.patience)
        refuse_unknown(options.stop, ("metric", "mode", "patience", "min_delta", "start"), "stop")
        arguments: dict[str, Any] = {"patience": options.patience} | options.stop
        return cls(**arguments)

    def on_pretrain_routine_end(self, trainer: Run) -> None:
        self.criterion.resolve(trainer, "stop")

    def adjust_metrics(self, trainer: Run, metrics: dict[str, float]) -> dict[str, float]:
        return self.criterion.add_to(trainer, metrics)

    def on_val_end(self, trainer: Run) -> None:
        epoch = trainer.epoch + 1
        value = self.criterion.value(trainer, trainer.fitness, "stop")
        self.last = (epoch, value)
        if epoch <= self.start or (self.best is None and not math.isfinite(value)):
            return
        if self.criterion.better(value, self.best, self.min_delta):
            self.best, self.best_epoch = value, epoch
        if out_of_patience(epoch, max(self.best_epoch, self.start), self.patience):
            trainer.stop = True

    def describe(self, trainer: Run) -> dict[str, object]:
        if not self.patience:
            return {"stop": "never early"}
        extra = [f"by more than {self.min_delta:g}"] * (self.min_delta > 0) + [f"after {self.start}"] * (self.start > 0)
        return {"stop": " ".join([f"{self.patience} epochs without a better {self.criterion}", *extra])}

    def witness(self, trainer: Run) -> dict[str, object]:
        if self.last is None:
            return {}
        epoch, value = self.last
        measured = {"value": value if math.isfinite(value) else None, "epoch": epoch}
        rule = {"metric": self.criterion.label, "mode": self.criterion.mode, **measured}
        return {"patience": self.patience, "stop": rule | {"patience": self.patience, "start": self.start}}

    def state_dict(self) -> dict[str, Any]:
        rule = {"metric": self.criterion.label, "mode": self.criterion.mode}
        return rule | {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what was best so far.

        Raises:
            ValueError: the run was started with another metric; its values cannot be compared.
        """
        if (state["metric"], state["mode"]) != (self.criterion.label, self.criterion.mode):
            raise ValueError(
                f"stop: the run was started with {state['metric']} ({state['mode']}), and cannot go on with "
                f"{self.criterion}."
            )
        self.best, self.best_epoch = state["best"], state["best_epoch"]
