"""The hybrid encoder of D-FINE: fewer activations, depth-wise steps, and blocks that join four maps (spec detr 2.2).

Legend: ``B`` images, ``D`` hidden width. Sub-module names are state-dict keys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eyas.models.encoders.hybrid import CSPRep, HybridEncoder
from eyas.nn.conv_norm import ConvNorm


class SeparateDown(nn.Module):
    """Mix the channels, then halve each map by itself: (B, c, H, W) -> (B, c, ceil(H/2), ceil(W/2)), no activation."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1 = ConvNorm(c, c)
        self.cv2 = ConvNorm(c, c, 3, 2, g=c)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c, H, W) to (B, c, ceil(H/2), ceil(W/2))."""
        return self.cv2(self.cv1(x))


class ELAN4(nn.Module):
    """Two halves of a map, and what two steps make of the second one, joined: (B, c1, H, W) -> (B, c2, H, W).

    Args:
        c1: channels in.
        c2: channels out.
        inner: channels of each of the two steps.
        units: RepVGG units in a step.
        wide: channels of the halves together; 0 for as many as come in.
    """

    def __init__(self, c1: int, c2: int, inner: int, units: int, wide: int = 0) -> None:
        super().__init__()
        wide = wide or c1
        self.cv1 = ConvNorm(c1, wide, act=nn.SiLU())
        self.cv2 = self.step(wide // 2, inner, units)
        self.cv3 = self.step(inner, inner, units)
        self.cv4 = ConvNorm(wide + 2 * inner, c2, act=nn.SiLU())

    @staticmethod
    def step(c1: int, c2: int, units: int) -> nn.Sequential:
        """Return one step: (B, c1, H, W) -> (B, c2, H, W)."""
        return nn.Sequential(CSPRep(c1, c2, c2, units), ConvNorm(c2, c2, 3, act=nn.SiLU()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        first, second = self.cv1(x).chunk(2, 1)
        once = self.cv2(second)
        return self.cv4(torch.cat((first, second, once, self.cv3(once)), 1))


class ELANEncoder(HybridEncoder):
    """`HybridEncoder` with D-FINE's parts; ``expansion`` is the inner width of a block as a share of D / 2."""

    def lateral(self, hidden: int) -> nn.Module:
        """Return a 1x1 convolution without activation."""
        return ConvNorm(hidden, hidden)

    def fusion(self, hidden: int, expansion: float, units: int) -> nn.Module:
        """Return a block that mixes two maps, joined by `join`: (B, 2 D, H, W) -> (B, D, H, W)."""
        return ELAN4(2 * hidden, hidden, int(expansion * hidden / 2), units)

    def down(self, hidden: int) -> nn.Module:
        """Return what halves a map; the layout has it one level deeper."""
        return nn.Sequential(SeparateDown(hidden))
