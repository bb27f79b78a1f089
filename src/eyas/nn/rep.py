"""Convolutions that train as two branches and run as one (spec core C.3). Sub-module names are state-dict keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import pad

from eyas.nn.conv import Conv, Fusable
from eyas.nn.conv_norm import ConvNorm

if TYPE_CHECKING:
    from torch import Tensor


class RepConv(Fusable):
    """SiLU of the sum of a 3x3 and a 1x1 convolution: (B, c1, H, W) -> (B, c2, H, W).

    After `fuse` it is the one biased 3x3 convolution ``conv`` that gives the same sum.
    """

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.conv1: Conv | ConvNorm | None = self.branch(c1, c2, 3)
        self.conv2: Conv | ConvNorm | None = self.branch(c1, c2, 1)
        self.conv: nn.Conv2d | None = None
        self.act = nn.SiLU()

    @staticmethod
    def branch(c1: int, c2: int, k: int) -> Conv | ConvNorm:
        """Return a convolution with normalisation and no activation; layouts differ in its key names."""
        return Conv(c1, c2, k, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        if self.conv1 is not None and self.conv2 is not None:
            return self.act(self.conv1(x) + self.conv2(x))
        assert self.conv is not None
        return self.act(self.conv(x))

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold both branches into one convolution, for inference only; does nothing the second time."""
        if self.conv1 is None or self.conv2 is None:
            return
        self.conv1.fuse()
        self.conv2.fuse()
        wide, narrow = self.conv1.conv, self.conv2.conv
        assert wide.bias is not None
        assert narrow.bias is not None
        wide.weight += pad(narrow.weight, [1, 1, 1, 1])  # a 1x1 kernel is a 3x3 one with a border of zeros
        wide.bias += narrow.bias
        self.conv = wide
        self.conv1 = self.conv2 = None


class RepC3(nn.Module):
    """A path through ``n`` `RepConv`, and a path past them, added: (B, c1, H, W) -> (B, c2, H, W).

    Inside, both are ``c2 * e`` wide; a last convolution exists only if that is not ``c2``.
    """

    def __init__(self, c1: int, c2: int, n: int = 3, e: float = 1.0) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(c1, hidden)
        self.m = nn.Sequential(*(RepConv(hidden, hidden) for _ in range(n)))
        self.cv3 = nn.Identity() if hidden == c2 else Conv(hidden, c2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        return self.cv3(self.m(self.cv1(x)) + self.cv2(x))
