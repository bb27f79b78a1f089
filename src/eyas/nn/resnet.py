"""Stages of a ResNet as the numbered RT-DETR tables have them (spec core C.3). Sub-module names are state-dict keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.functional import relu

from eyas.nn.conv import Conv
from eyas.nn.recomputed import Recomputed

if TYPE_CHECKING:
    from torch import Tensor


class ResNetBlock(Recomputed):
    """Bottleneck with a shortcut: (B, c1, H, W) -> (B, e c2, H/s, W/s). SiLU inside, ReLU after the sum."""

    def __init__(self, c1: int, c2: int, s: int = 1, e: int = 4) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2)
        self.cv2 = Conv(c2, c2, 3, s)
        self.cv3 = Conv(c2, e * c2, act=False)
        changes = s != 1 or c1 != e * c2
        self.shortcut = nn.Sequential(Conv(c1, e * c2, 1, s, act=False)) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, e c2, H/s, W/s)."""
        return relu(self.cv3(self.cv2(self.cv1(x))) + self.shortcut(x))


class ResNetLayer(nn.Module):
    """The stem (``is_first``): (B, c1, H, W) -> (B, c2, H/4, W/4); or ``n`` blocks: -> (B, e c2, H/s, W/s)."""

    def __init__(self, c1: int, c2: int, s: int = 1, is_first: bool = False, n: int = 1, e: int = 4) -> None:
        super().__init__()
        if is_first:
            self.layer = nn.Sequential(Conv(c1, c2, 7, 2), nn.MaxPool2d(3, stride=2, padding=1))
        else:
            later = (ResNetBlock(e * c2, c2, 1, e) for _ in range(n - 1))
            self.layer = nn.Sequential(ResNetBlock(c1, c2, s, e), *later)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to the stage's map."""
        return self.layer(x)
