"""Blocks of HGNetv2 as the numbered RT-DETR tables have them (spec core C.3). Sub-module names are state-dict keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import pad

from eyas.nn.conv import Conv, DWConv
from eyas.nn.recomputed import Recomputed

if TYPE_CHECKING:
    from torch import Tensor


class HGStem(Recomputed):
    """Stem with a pooling and a convolution branch: (B, c1, H, W) -> (B, c2, H/4, W/4); ``cm`` channels inside."""

    def __init__(self, c1: int, cm: int, c2: int) -> None:
        super().__init__()
        self.stem1 = Conv(c1, cm, 3, 2, act=nn.ReLU())
        self.stem2a = Conv(cm, cm // 2, 2, 1, 0, act=nn.ReLU())
        self.stem2b = Conv(cm // 2, cm, 2, 1, 0, act=nn.ReLU())
        self.stem3 = Conv(2 * cm, cm, 3, 2, act=nn.ReLU())
        self.stem4 = Conv(cm, c2, 1, act=nn.ReLU())
        self.pool = nn.MaxPool2d(2, stride=1, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H/4, W/4)."""
        x = pad(self.stem1(x), [0, 1, 0, 1])  # right and bottom: 2x2 kernels at stride 1 lose one row and column
        narrow = self.stem2b(pad(self.stem2a(x), [0, 1, 0, 1]))
        return self.stem4(self.stem3(torch.cat((self.pool(x), narrow), 1)))


class LightConv(nn.Module):
    """Pointwise, then depthwise convolution: (B, c1, H, W) -> (B, c2, H, W)."""

    def __init__(self, c1: int, c2: int, k: int = 3) -> None:
        super().__init__()
        self.conv1 = Conv(c1, c2, act=False)
        self.conv2 = DWConv(c2, c2, k, act=nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        return self.conv2(self.conv1(x))


class HGBlock(Recomputed):
    """A chain of ``n`` convolutions whose stages are all joined and squeezed: (B, c1, H, W) -> (B, c2, H, W).

    Args:
        c1: channels in.
        cm: channels of every stage.
        c2: channels out.
        k: kernel of a stage.
        n: stages.
        light: stages are `LightConv` instead of `Conv`.
        shortcut: add the input if it is as wide as the output.
    """

    def __init__(
        self, c1: int, cm: int, c2: int, k: int = 3, n: int = 6, light: bool = False, shortcut: bool = False
    ) -> None:
        super().__init__()
        widths = [c1, *[cm] * (n - 1)]
        self.m = nn.ModuleList(LightConv(c, cm, k) if light else Conv(c, cm, k, act=nn.ReLU()) for c in widths)
        self.sc = Conv(c1 + n * cm, c2 // 2, act=nn.ReLU())
        self.ec = Conv(c2 // 2, c2, act=nn.ReLU())
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        stages = [x]
        for layer in self.m:
            stages.append(layer(stages[-1]))
        y = self.ec(self.sc(torch.cat(stages, 1)))
        return x + y if self.add else y
