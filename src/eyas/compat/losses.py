"""The incumbent's loss classes over Eyas' criteria, for scripts that subclass them (spec core A.8, D.2, D.4).

Legend: ``B`` images, ``A`` anchors, ``C`` classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from eyas import dist
from eyas.assign import Assignment
from eyas.losses import DenseCriterion, EndToEndCriterion
from eyas.losses.end_to_end import END, START
from eyas.types import Progress


class v8DetectionLoss(DenseCriterion):
    """The loss of one branch, with everything taken from the model.

    Args:
        model: an unwrapped model on its device; its last layer says strides, classes and bins, and its ``gains`` and
            ``class_weights``, if any, what losses and classes weigh.
        tal_topk: anchors chosen for each object.
        tal_topk2: anchors kept for each object; None keeps all chosen ones.

    Attributes:
        bce: may be replaced after ``super().__init__()``: logits and targets (B, A, C) to unreduced losses (B, A, C).
        device: where the model is. hyp: the options of the run.

    `__call__` goes through `loss`, and that through `get_assigned_targets_and_loss`; any of them may be overridden.
    """

    def __init__(self, model: nn.Module, tal_topk: int = 10, tal_topk2: int | None = None) -> None:
        network: Any = model
        head = network.model[-1]
        self.hyp: Any = network.args
        gains = {f"{name}_gain": gain for name, gain in (network.gains or {}).items()}
        super().__init__(
            nc=head.nc,
            strides=head.stride.tolist(),
            reg_max=head.reg_max,
            topk=tal_topk,
            topk2=tal_topk2,
            class_weights=network.class_weights,
            **gains,
        )
        self.device = next(model.parameters()).device
        self.stride = head.stride

    def __call__(self, preds: Any, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector (3,) times B, and detached items."""
        return self.loss(self.parse_output(preds), batch)

    def loss(self, raw: Mapping[str, Any], batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector (3,) times B, and detached items, of raw predictions.

        In several processes B is the mean over them, as in `DenseCriterion`.
        """
        _, losses, items = self.get_assigned_targets_and_loss(raw, batch)
        return losses * dist.mean_over_ranks(losses.new_full((), raw["boxes"].shape[0])), items

    def get_assigned_targets_and_loss(  # type: ignore[override]  # one value more than ours, as scripts expect
        self, raw: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> tuple[Assignment, Tensor, dict[str, Tensor]]:
        """Return the assignment, the weighted losses (3,) not yet times B, and those by name."""
        assigned, losses = super().get_assigned_targets_and_loss(raw, batch)
        return assigned, losses, dict(zip(self.loss_names, losses.detach(), strict=True))


class E2ELoss(EndToEndCriterion):
    """The weighted sum of a one-to-many and a one-to-one loss.

    Args:
        model: an unwrapped model on its device.
        loss_fn: called as ``loss_fn(model, tal_topk=10)`` and ``loss_fn(model, tal_topk=7, tal_topk2=1)``.

    Attributes:
        one2many, one2one: the branches. o2m, o2o: their weights now; ``total`` is their sum.
        updates: epochs that lie behind. o2m_copy, final_o2m: weight of the first branch at the start and at the end.

    The trainer sends progress, which calls `update` once for each epoch that has passed: an override of `update` or
    `decay` counts, and a resumed run is where it would have been.
    """

    def __init__(self, model: nn.Module, loss_fn: Callable[..., Any] = v8DetectionLoss) -> None:
        super().__init__(loss_fn(model, tal_topk=10), loss_fn(model, tal_topk=7, tal_topk2=1))
        network: Any = model
        self.hyp: Any = network.args
        self.epochs: int | None = None
        self.updates = 0
        self.passed = 0
        self.total = 1.0
        self.o2m_copy, self.final_o2m = START, END

    def set_progress(self, progress: Progress) -> None:
        """Update once for every epoch that has passed since the last call."""
        self.epochs = progress.epochs
        for _ in range(progress.epoch - self.passed):
            self.update()
        self.passed = max(progress.epoch, self.passed)

    def update(self) -> None:
        """Set the weights of the next epoch."""
        self.updates += 1
        self.o2m = self.decay(self.updates)
        self.o2o = max(self.total - self.o2m, 0.0)

    def decay(self, x: int) -> float:
        """Return the weight of the one-to-many branch after ``x`` epochs."""
        epochs = self.epochs if self.epochs is not None else self.hyp.epochs
        return max(1 - x / max(epochs - 1, 1), 0.0) * (self.o2m_copy - self.final_o2m) + self.final_o2m
