"""The loss of DINO and its relatives: as that of RT-DETR, with the focal loss for classes (spec detr 5.2)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from eyas.losses.elementwise import focal_loss
from eyas.losses.set_criterion import SetCriterion


class FocalSetCriterion(SetCriterion):
    """Focal, L1 and GIoU loss of matched and denoising queries; see `SetCriterion` for all but the class loss.

    Args:
        alpha: weight of wanted classes, 1 - alpha of unwanted ones.
        settings: the others of `SetCriterion`, but for ``matchability``, which is another loss of classes; ``gamma``
            says how much less an easy term counts here.
    """

    compiled_methods = SetCriterion.compiled_methods

    def __init__(self, *, alpha: float = 0.25, **settings: Any) -> None:
        super().__init__(alpha=alpha, matchability=None, **settings)  # one that is given too is a TypeError

    def class_loss(self, logits: Tensor, targets: Tensor, positive: Tensor | None = None) -> Tensor:
        """Return the unreduced class loss (N, B, Q, C): how well a box fits makes no difference to a wanted class."""
        wanted = targets > 0 if positive is None else positive
        return focal_loss(logits, wanted.to(logits.dtype), alpha=self.alpha, gamma=self.gamma)
