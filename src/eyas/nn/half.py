"""Sums that stay in the range of half precision."""

from __future__ import annotations

import torch
from torch import Tensor

HALF_MAX = 65504.0  # largest number of float16


def added(x: Tensor, change: Tensor) -> Tensor:
    """Return the sum, kept in the range of float16 where that is what is computed in: beyond it comes NaN.

    Seen upstream after long training.
    """
    total = x + change
    return total.clamp(-HALF_MAX, HALF_MAX) if change.dtype is torch.float16 else total
