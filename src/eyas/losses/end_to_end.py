"""The loss of an end-to-end detector: two branches whose weights shift with progress (spec core D.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from eyas.nn.compilable import Compilable, compilables

if TYPE_CHECKING:
    from torch import Tensor

    from eyas.types import Progress

Branch = Callable[[Any, Mapping[str, Any]], tuple["Tensor", dict[str, "Tensor"]]]
START, END = 0.8, 0.1  # weight of the one-to-many branch in the first and in the last epoch


def one_to_many_weight(epoch: int, epochs: int) -> float:
    """Return the weight of the one-to-many branch: 0.8 in epoch 0, falling linearly to 0.1 in the last one."""
    return max(1 - epoch / max(epochs - 1, 1), 0.0) * (START - END) + END


class EndToEndCriterion(Compilable):
    """Weighted sum of a one-to-many and a one-to-one criterion.

    Early on, many anchors per object teach the trunk quickly; later the NMS-free branch, the one used, gets the say.
    Without a call of `set_progress` the weights stay at their start.
    """

    compiled_methods = ()

    def __init__(self, one2many: Branch, one2one: Branch) -> None:
        self.one2many = one2many
        self.one2one = one2one
        self.o2m = START
        self.o2o = 1 - START

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of the items; none if the branch in use is a user's own and does not tell."""
        return tuple(getattr(self.one2one, "loss_names", ()))

    def set_progress(self, progress: Progress) -> None:
        """Set the weights for this stage of training: a function of ``progress`` alone."""
        self.o2m = one_to_many_weight(progress.epoch, progress.epochs)
        self.o2o = max(1 - self.o2m, 0.0)

    def effects(self) -> dict[str, float]:
        """Return the gains that both branches apply, by option; a branch of the user's own may tell none."""
        many: dict[str, float] = getattr(self.one2many, "effects", dict)()
        one: dict[str, float] = getattr(self.one2one, "effects", dict)()
        return {option: gain for option, gain in one.items() if many.get(option) == gain}

    def compilables(self) -> tuple[object, ...]:
        """Return this object and what both branches are made of; one of the user's own may be any callable."""
        return (self, *compilables(self.one2many), *compilables(self.one2one))

    def __call__(self, preds: Any, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector (3,) times B, and the unweighted items of the branch in use, the one-to-one.

        ``preds`` is {"one2many": raw, "one2one": raw} or (decoded, that).
        """
        raw = preds[1] if isinstance(preds, tuple) else preds
        many, _ = self.one2many(raw["one2many"], batch)
        one, items = self.one2one(raw["one2one"], batch)
        return many * self.o2m + one * self.o2o, items
