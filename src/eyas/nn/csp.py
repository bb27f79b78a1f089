"""Bottlenecks and cross-stage-partial blocks (spec core C.0). Sub-module names are state-dict keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from eyas.nn.attention import PSABlock
from eyas.nn.conv import Conv

if TYPE_CHECKING:
    from torch import Tensor


class Bottleneck(nn.Module):
    """Two convolutions with an optional residual: (B, c1, H, W) -> (B, c2, H, W); hidden width ``c2 * e``."""

    def __init__(
        self, c1: int, c2: int, shortcut: bool = True, g: int = 1, k: tuple[int, int] = (3, 3), e: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, k[0])
        self.cv2 = Conv(hidden, c2, k[1], g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3k(nn.Module):
    """Two parallel paths, one through ``n`` bottlenecks with kernel ``k``: (B, c1, H, W) -> (B, c2, H, W)."""

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5, k: int = 3
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(c1, hidden)
        self.cv3 = Conv(2 * hidden, c2)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, (k, k), e=1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C3k2(nn.Module):
    """Split the channels, send one half through ``n`` chained blocks, join every stage: (B, c1, ..) -> (B, c2, ..).

    A block is a `Bottleneck`, a `C3k` when ``c3k``, or a bottleneck followed by attention when ``attn``.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        c3k: bool = False,
        e: float = 0.5,
        attn: bool = False,
        g: int = 1,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.c = int(c2 * e)
        self.cv1 = Conv(c1, 2 * self.c)
        self.cv2 = Conv((2 + n) * self.c, c2)
        self.m = nn.ModuleList(self._block(c3k, attn, g, shortcut) for _ in range(n))

    def _block(self, c3k: bool, attn: bool, g: int, shortcut: bool) -> nn.Module:
        if attn:
            heads = max(self.c // 64, 1)
            return nn.Sequential(Bottleneck(self.c, self.c, shortcut, g), PSABlock(self.c, 0.5, heads))
        return C3k(self.c, self.c, 2, shortcut, g) if c3k else Bottleneck(self.c, self.c, shortcut, g)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        stages = list(self.cv1(x).split((self.c, self.c), 1))
        for block in self.m:
            stages.append(block(stages[-1]))
        return self.cv2(torch.cat(stages, 1))


class SPPF(nn.Module):
    """Pool ``n`` times in a chain and join every stage, for a wide view at little cost: (B, c1, ..) -> (B, c2, ..).

    ``act`` is the activation of the first convolution: off in YOLO26, on in older families.
    """

    def __init__(self, c1: int, c2: int, k: int = 5, n: int = 3, shortcut: bool = False, *, act: bool = False) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, act=act)
        self.cv2 = Conv((n + 1) * hidden, c2)
        self.m = nn.MaxPool2d(k, stride=1, padding=k // 2)
        self.n = n
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        stages = [self.cv1(x)]
        for _ in range(self.n):
            stages.append(self.m(stages[-1]))
        y = self.cv2(torch.cat(stages, 1))
        return x + y if self.add else y
