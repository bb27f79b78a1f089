"""Normalisation by the root of the mean square (Zhang and Sennrich, 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eyas.nn.deformable import at_least_float32


class RMSNorm(nn.Module):
    """Divide by the root of the mean square of all channels, and scale each: (..., D) -> (..., D).

    In at least float32; the parameter is called ``scale``, as in the files of DEIMv2.
    """

    undecayed = frozenset({"scale"})

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        wide = at_least_float32(x)
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.scale
