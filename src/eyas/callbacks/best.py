"""The best epoch, by any number.

What: decides which epoch's weights are kept as ``best.pt``, and, by further criteria, as files of their own.
When: after each validation; the first criterion drives ``best.pt``, each other one ``best_<its name>.pt``.
Default: 0.1 mAP50 + 0.9 mAP50-95, larger is better.
Hazards: a noisy number, or a small validation set, rewards luck; early epochs of a pretrained model can look best
(``start`` leaves them out). Ties keep the earlier epoch, nan never wins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eyas.callbacks.base import Decision, StockCallback
from eyas.callbacks.criterion import Criterion, Function
from eyas.config.errors import refuse_unknown
from eyas.run.protocol import Run

if TYPE_CHECKING:
    from eyas.config import TrainOptions

MAIN = "best"
CriterionLike = str | Mapping[str, Any] | Function


def best_epoch(values: Mapping[int, float], mode: str = "max") -> int:
    """Return the epoch with the best value: ties keep the earlier, nan and infinity never win; 0 if none can.

    Args:
        values: epoch -> value, in order of epochs.
        mode: ``"max"`` or ``"min"``.
    """
    rule, best = Criterion("value", mode), 0
    for epoch, value in values.items():
        best = epoch if rule.better(value, values.get(best)) else best
    return best


def file_stem(metric: str) -> str:
    """Return the stem of the file of a criterion: ``metrics/mAP50(B)`` gives ``best_mAP50``."""
    plain = metric.removeprefix("metrics/").removesuffix("(B)")
    return f"{MAIN}_" + re.sub(r"[^\w-]+", "_", plain).strip("_")


class Keeper:
    """One criterion, the file it is for, and its best so far.

    Attributes:
        criterion: what is compared.
        stem: file name without ``.pt``.
        start: epochs at the beginning that cannot be best.
        best, epoch: value and 1-based epoch of the best so far; None and 0 before.
    """

    def __init__(self, criterion: Criterion, stem: str, start: int = 0) -> None:
        self.criterion = criterion
        self.stem = stem
        self.start = start
        self.best: float | None = None
        self.epoch = 0

    def may_win(self, epoch: int) -> bool:
        """Whether this 1-based epoch takes part."""
        return epoch > self.start

    def record(self) -> dict[str, Any]:
        """Return criterion, best value and epoch as plain values."""
        rule = self.criterion
        return {"metric": rule.label, "mode": rule.mode, "value": self.best, "epoch": self.epoch}


class BestBy(StockCallback):
    """Keep the best weights by one or several criteria.

    Args:
        *criteria: each a key (``"metrics/mAP50(B)"``, ``"val/box_loss"``), a short name (``"map50"``, ``"f1"``,
            ``"recall_at_p90"``, ``"map/cat"``), ``fn(metrics) -> float``, or a mapping of ``metric`` with ``mode``
            ("max", "min"), ``start`` (epochs that cannot be best) and ``name`` (stem of the file). The first one
            decides ``best.pt`` and with it the run's fitness, which is negative for a "min" criterion.
    """

    decides = Decision.BEST
    options = ("best_by",)

    def __init__(self, *criteria: CriterionLike) -> None:
        if not criteria:
            raise ValueError('BestBy needs at least one criterion, for example BestBy("f1").')
        self.keepers = [keeper(given, first=i == 0) for i, given in enumerate(criteria)]
        stems = [k.stem for k in self.keepers]
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        if twice:
            raise ValueError(f"two criteria of BestBy want the file {twice[0]}.pt; give one of them another `name`.")
        self.values: list[float] = []
        self.was_restored = False

    @classmethod
    def from_options(cls, options: TrainOptions) -> BestBy | None:
        return cls(*options.best_by) if options.best_by else None

    def on_pretrain_routine_end(self, trainer: Run) -> None:
        for k in self.keepers:
            k.criterion.resolve(trainer, "best_by")
            if k.start >= trainer.epochs:
                raise ValueError(f"best_by: start={k.start} leaves no epoch of {trainer.epochs} to be the best.")
            if k.stem != MAIN and k.epoch:
                trainer.best_files[k.stem] = k.epoch
        if trainer.resume_from is not None and not self.was_restored:
            raise ValueError(
                "this run was started without best_by, so its best epoch was chosen by another number; "
                "start a new run from last.pt instead."
            )

    def adjust_metrics(self, trainer: Run, metrics: dict[str, float]) -> dict[str, float]:
        for k in self.keepers:
            metrics = k.criterion.add_to(trainer, metrics)
        return metrics

    def adjust_fitness(self, trainer: Run, fitness: float) -> float:
        self.values = [k.criterion.value(trainer, fitness, "best_by") for k in self.keepers]
        main = self.keepers[0]
        return main.criterion.score(self.values[0]) if main.may_win(trainer.epoch + 1) else math.nan

    def on_val_end(self, trainer: Run) -> None:
        epoch = trainer.epoch + 1
        for k, value in zip(self.keepers, self.values, strict=True):
            if k.stem == MAIN:
                won = trainer.best_files[MAIN] == epoch  # the trainer has decided; a method of the user's may have too
            else:
                won = k.may_win(epoch) and k.criterion.better(value, k.best)
            if won:
                k.best, k.epoch = value, epoch
                trainer.best_files[k.stem] = epoch

    def adjust_checkpoint(self, trainer: Run, checkpoint: dict[str, Any]) -> dict[str, Any]:
        return checkpoint | {"best_by": {k.stem: k.record() for k in self.keepers}}

    def describe(self, trainer: Run) -> dict[str, object]:
        return {f"{k.stem}.pt": str(k.criterion) for k in self.keepers}

    def witness(self, trainer: Run) -> dict[str, object]:
        records = {k.stem: k.record() for k in self.keepers if k.epoch}
        return {"best_by": records or "no epoch with a finite value has taken part yet"}

    def state_dict(self) -> dict[str, Any]:
        return {k.stem: k.record() for k in self.keepers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what was best so far.

        Raises:
            ValueError: the run was started with other criteria; their values cannot be compared.
        """
        for k in self.keepers:
            saved = state.get(k.stem, {})
            if (saved.get("metric"), saved.get("mode")) != (k.criterion.label, k.criterion.mode):
                before = ", ".join(f"{s['metric']} ({s['mode']})" for s in state.values())
                raise ValueError(f"best_by: the run was started with {before}, and cannot go on with {k.criterion}.")
            k.best, k.epoch = saved["value"], saved["epoch"]
        self.was_restored = True


def keeper(given: CriterionLike, first: bool) -> Keeper:
    """Return a criterion with its file from what the user wrote.

    Raises:
        ValueError: unknown key of a mapping, or a name that is no file name.
    """
    wanted: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"metric": given}
    refuse_unknown(wanted, ("metric", "mode", "name", "start"), "best_by")
    if "metric" not in wanted:
        raise ValueError(f"best_by: {wanted} names no metric.")
    criterion = Criterion(wanted["metric"], wanted.get("mode"))
    name, start = wanted.get("name"), wanted.get("start", 0)
    if isinstance(start, bool) or not isinstance(start, int) or start < 0:
        raise ValueError(f"best_by: start={start!r} of {criterion.label} must be a whole number of epochs.")
    if name is None:
        return Keeper(criterion, MAIN if first else file_stem(criterion.label), start)
    if first:
        raise ValueError(f"best_by: the first criterion writes {MAIN}.pt; leave name={name!r} out, or list it later.")
    reserved = re.fullmatch(r"best|last|epoch\d*", str(name))
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name) or reserved:
        raise ValueError(f"best_by: name={name!r} must be letters, digits, - and _, and not best, last or epochN.")
    return Keeper(criterion, name, start)
