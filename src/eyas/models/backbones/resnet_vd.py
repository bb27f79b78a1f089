"""ResNet-vd: a stem of three 3x3 convolutions and shortcuts that average before they project (spec detr 1.2).

From He et al., "Bag of Tricks for Image Classification with CNNs" (variant D). Sub-module names are state-dict keys of
the official RT-DETR layout.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor, nn
from torch.nn.functional import relu

from eyas.models.backbones.base import Backbone, init_convolutions
from eyas.nn.conv_norm import ConvNorm
from eyas.nn.recomputed import Recomputed
from eyas.types import FeatureSpec

RESNET_VD: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
)
"""Depth -> blocks of each stage."""
WIDTHS = (64, 128, 256, 512)  # of the four stages, before the expansion of bottlenecks
BOTTLENECKS_FROM = 50  # shallower networks have basic blocks


class BasicBlock(Recomputed):
    """Two 3x3 convolutions and a shortcut, ReLU after the sum: (B, c1, H, W) -> (B, width, H/s, W/s)."""

    expansion = 1

    def __init__(self, c1: int, width: int, s: int, project: bool) -> None:
        super().__init__()
        self.short = shortcut(c1, width, s) if project else nn.Identity()
        self.branch2a = ConvNorm(c1, width, 3, s, nn.ReLU())
        self.branch2b = ConvNorm(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, width, ceil(H/s), ceil(W/s))."""
        return relu(self.branch2b(self.branch2a(x)) + self.short(x))


class BottleneckBlock(Recomputed):
    """1x1, 3x3 (it carries the stride) and 1x1, ReLU after the sum: (B, c1, H, W) -> (B, 4 width, H/s, W/s)."""

    expansion = 4

    def __init__(self, c1: int, width: int, s: int, project: bool) -> None:
        super().__init__()
        self.branch2a = ConvNorm(c1, width, 1, act=nn.ReLU())
        self.branch2b = ConvNorm(width, width, 3, s, nn.ReLU())
        self.branch2c = ConvNorm(width, 4 * width)
        self.short = shortcut(c1, 4 * width, s) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, 4 width, ceil(H/s), ceil(W/s))."""
        return relu(self.branch2c(self.branch2b(self.branch2a(x))) + self.short(x))


def shortcut(c1: int, c2: int, s: int) -> nn.Module:
    """Return the projection of a stage's first block: at stride 2 it averages 2x2 cells before, and loses none."""
    if s == 1:
        return ConvNorm(c1, c2)
    return nn.Sequential(OrderedDict(pool=nn.AvgPool2d(2, 2, ceil_mode=True), conv=ConvNorm(c1, c2)))


class Stage(nn.Module):
    """Blocks of one resolution; the first has the stride and a projection: (B, c1, H, W) -> (B, c2, H/s, W/s)."""

    def __init__(
        self, block: type[BasicBlock] | type[BottleneckBlock], c1: int, width: int, count: int, s: int
    ) -> None:
        super().__init__()
        inner = block.expansion * width
        rest = (block(inner, width, 1, project=False) for _ in range(count - 1))
        self.blocks = nn.Sequential(block(c1, width, s, project=True), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, ceil(H/s), ceil(W/s))."""
        return self.blocks(x)


class ResNetVd(Backbone):
    """ResNet-vd of a depth in `RESNET_VD`: images (B, ch, H, W) to ``p2`` ... ``p5``."""

    stem_prefix = "conv1."

    def __init__(self, depth: int, ch: int = 3) -> None:
        super().__init__()
        counts = RESNET_VD[depth]
        block: type[BasicBlock] | type[BottleneckBlock] = BottleneckBlock if depth >= BOTTLENECKS_FROM else BasicBlock
        self.conv1 = nn.Sequential(
            OrderedDict(
                conv1_1=ConvNorm(ch, 32, 3, 2, nn.ReLU()),
                conv1_2=ConvNorm(32, 32, 3, act=nn.ReLU()),
                conv1_3=ConvNorm(32, 64, 3, act=nn.ReLU()),
            )
        )
        self.pool = nn.MaxPool2d(3, 2, 1)
        inputs = (64, *(block.expansion * w for w in WIDTHS))
        self.res_layers = nn.ModuleList(
            Stage(block, inputs[i], WIDTHS[i], counts[i], s=1 if i == 0 else 2) for i in range(4)
        )
        names = [f"p{i + 2}" for i in range(4)]
        self.levels = {n: FeatureSpec(inputs[i + 1], 4 << i) for i, n in enumerate(names)}
        self.parts = {n: (*((self.stem_prefix,) if i == 0 else ()), f"res_layers.{i}.") for i, n in enumerate(names)}
        steps = ((f"res_layers.{i}.blocks.{j}.",) for i in range(4) for j in range(counts[i]))
        self.blocks = ((self.stem_prefix,), *steps)
        init_convolutions(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (B, ch, H, W) to {"p2": (B, C2, ceil(H/4), ceil(W/4)), ..., "p5": (B, C5, ceil(H/32), ceil(W/32))}."""
        x = self.pool(self.conv1(x))
        maps = {}
        for name, stage in zip(self.levels, self.res_layers, strict=True):
            x = maps[name] = stage(x)
        return maps
