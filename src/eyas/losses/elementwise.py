"""Losses of single elements: no reduction, no weights, no knowledge of who is compared with whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from eyas.boxes import elementwise_ciou

if TYPE_CHECKING:
    from torch import Tensor


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return binary cross-entropy (...) of logits with soft targets in [0, 1], both (...)."""
    return binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the sigmoid focal loss (...) of logits with targets in [0, 1], both (...) (Lin et al., 2017).

    ``alpha`` weighs wanted classes, 1 - ``alpha`` unwanted ones; ``gamma`` is how much less an easy term counts. The
    gradient flows through that factor, as in the paper.
    """
    p = logits.sigmoid()
    miss = p + targets - 2 * p * targets  # 1 - p where the class is wanted, p elsewhere
    weight = (1 - alpha) + (2 * alpha - 1) * targets
    return weight * miss**gamma * bce_loss(logits, targets)


def varifocal_loss(
    logits: Tensor, targets: Tensor, positive: Tensor | None = None, *, alpha: float = 0.75, gamma: float = 2.0
) -> Tensor:
    """Return the varifocal loss (...) of logits with soft targets in [0, 1], both (...) (Zhang et al., 2021).

    Binary cross-entropy, weighted by the target where the class is wanted and by ``alpha * score**gamma`` elsewhere. No
    gradient flows through these weights. ``positive`` (...) bool says where a class is wanted; without it, where the
    target is above 0. A wanted class with target 0 has weight 0.
    """
    with torch.no_grad():
        positive = targets > 0 if positive is None else positive
        weight = torch.where(positive, targets, alpha * logits.sigmoid() ** gamma)
    return weight * bce_loss(logits, targets)


def matchability_loss(logits: Tensor, targets: Tensor, positive: Tensor | None = None, *, gamma: float = 1.5) -> Tensor:
    """Return the matchability-aware loss (...) of logits with overlaps in [0, 1], both (...) (Huang et al., 2025).

    Binary cross-entropy towards ``overlap**gamma`` with weight 1 where the class is wanted, so that a box that hardly
    overlaps still lowers its score; elsewhere with weight ``score**gamma``, through which no gradient flows.
    ``positive`` (...) bool says where a class is wanted; without it, where the overlap is above 0.
    """
    with torch.no_grad():
        positive = targets > 0 if positive is None else positive
        weight = torch.where(positive, 1.0, logits.sigmoid() ** gamma)
    return weight * bce_loss(logits, targets**gamma)


def ciou_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Return 1 - CIoU (...), at least 0, of corner boxes (..., 4)."""
    return 1 - elementwise_ciou(pred, target)


def l1_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference (...) over the last dimension."""
    return (pred - target).abs().mean(-1)


def dfl_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the distribution focal loss (..., 4) (Li et al., 2020).

    ``logits`` (..., 4, R) over the distances 0..R-1, ``target`` (..., 4) in cells: cross-entropy on the two
    neighbouring distances, weighted by closeness. Targets beyond the last distance are limited to just below it.
    """
    bins = logits.shape[-1]
    target = target.clamp(0, bins - 1 - 0.01)
    left = target.floor().long()
    weight_right = target - left
    logp = logits.log_softmax(-1)
    at_left = logp.gather(-1, left[..., None]).squeeze(-1)
    at_right = logp.gather(-1, left[..., None] + 1).squeeze(-1)
    return -(at_left * (1 - weight_right) + at_right * weight_right)


def dfl_expectation(logits: Tensor) -> Tensor:
    """Return the expected distance (..., 4) of logits (..., 4, R) over the distances 0..R-1."""
    bins = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
    return logits.softmax(-1) @ bins
