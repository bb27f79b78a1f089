"""The loss of DINO and its relatives: as that of RT-DETR, with the focal loss for classes (spec detr 5.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from eyas.assign import HungarianMatcher
from eyas.losses.elementwise import focal_loss
from eyas.losses.set_criterion import SetCriterion


class FocalSetCriterion(SetCriterion):
    """Focal, L1 and GIoU loss of matched and denoising queries; see `SetCriterion` for all but the class loss.

    Args:
        alpha: weight of wanted classes, 1 - alpha of unwanted ones.
        gamma: how much less an easy term counts.
    """

    def __init__(
        self,
        *,
        nc: int,
        cls_gain: float = 1.0,
        l1_gain: float = 5.0,
        giou_gain: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        class_weights: Tensor | Sequence[float] | None = None,
        matcher: HungarianMatcher | None = None,
    ) -> None:
        super().__init__(
            nc=nc,
            cls_gain=cls_gain,
            l1_gain=l1_gain,
            giou_gain=giou_gain,
            alpha=alpha,
            gamma=gamma,
            class_weights=class_weights,
            matcher=matcher,
        )

    def class_loss(self, logits: Tensor, targets: Tensor, positive: Tensor | None = None) -> Tensor:
        """Return the unreduced class loss (N, B, Q, C): how well a box fits makes no difference to a wanted class."""
        wanted = targets > 0 if positive is None else positive
        return focal_loss(logits, wanted.to(logits.dtype), alpha=self.alpha, gamma=self.gamma)
