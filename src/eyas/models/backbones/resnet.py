"""ResNet as most detectors and weights know it: one 7x7 convolution as stem, strides in the 3x3 (He et al., 2016).

Sub-module names are those of torchvision's weights, ``conv1``, ``bn1``, ``layer1.0.conv1`` ..., which so load as they
are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor, nn
from torch.nn.functional import relu

from eyas.models.backbones.base import Backbone, init_convolutions
from eyas.nn import Fusable
from eyas.nn.conv_norm import fold_norm, is_norm
from eyas.nn.recomputed import Recomputed
from eyas.types import FeatureSpec

STAGES = 4


@dataclass(frozen=True)
class Sizes:
    """Blocks of each stage, inner channels of the first one, and whether blocks are bottlenecks."""

    blocks: tuple[int, int, int, int]
    width: int = 64
    bottleneck: bool = True


RESNET: Mapping[str, Sizes] = MappingProxyType(
    {
        "resnet18": Sizes((2, 2, 2, 2), bottleneck=False),
        "resnet34": Sizes((3, 4, 6, 3), bottleneck=False),
        "resnet50": Sizes((3, 4, 6, 3)),
        "resnet101": Sizes((3, 4, 23, 3)),
        # Ours, for tests and small data. Of 8 channels, oneDNN 3.12 writes past the end of the gradient of a shortcut.
        "resnet10-16": Sizes((1, 1, 1, 1), width=16, bottleneck=False),
    }
)
"""Name -> sizes."""


class Folding(Fusable):
    """A module whose ``pairs`` name convolutions and their normalisations."""

    pairs: tuple[tuple[str, str], ...]

    def fuse(self) -> None:
        """Fold normalisations into convolutions, for inference only; does nothing the second time."""
        for conv, norm in self.pairs:
            if is_norm(self.get_submodule(norm)):
                folded = fold_norm(self.get_submodule(conv), self.get_submodule(norm))  # type: ignore[arg-type]
                self.set_submodule(conv, folded)
                self.set_submodule(norm, nn.Identity())


def conv(c1: int, c2: int, k: int, s: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(c1, c2, k, s, k // 2, bias=False)


class Block(Recomputed, Folding):
    """Convolutions with a shortcut, ReLU after the sum: (B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s)).

    Where size or width changes, the shortcut is a 1x1 convolution.
    """

    def __init__(self, c1: int, c2: int, s: int) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        self.pairs = tuple((f"conv{i}", f"bn{i}") for i in range(1, self.count + 1))
        if s > 1 or c1 != c2:
            self.downsample = nn.Sequential(conv(c1, c2, 1, s), nn.BatchNorm2d(c2))
            self.pairs = (*self.pairs, ("downsample.0", "downsample.1"))

    count: int  # convolutions


class BasicBlock(Block):
    """Two 3x3 convolutions."""

    expansion = 1
    count = 2

    def __init__(self, c1: int, width: int, s: int) -> None:
        super().__init__(c1, width, s)
        self.conv1, self.bn1 = conv(c1, width, 3, s), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, width, ceil(H/s), ceil(W/s))."""
        y = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(Block):
    """1x1, 3x3 with the stride, and 1x1 to four times the width."""

    expansion = 4
    count = 3

    def __init__(self, c1: int, width: int, s: int) -> None:
        super().__init__(c1, 4 * width, s)
        self.conv1, self.bn1 = conv(c1, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, s), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, 4 width, ceil(H/s), ceil(W/s))."""
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        return relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet(Backbone, Folding):
    """ResNet of a name in `RESNET`: images (B, ch, H, W) to ``p2`` ... ``p5``."""

    stem_prefix = "conv1."
    pairs = (("conv1", "bn1"),)

    def __init__(self, name: str, ch: int = 3) -> None:
        super().__init__()
        sizes = RESNET[name]
        block: type[BasicBlock] | type[Bottleneck] = Bottleneck if sizes.bottleneck else BasicBlock
        self.conv1, self.bn1 = nn.Conv2d(ch, sizes.width, 7, 2, 3, bias=False), nn.BatchNorm2d(sizes.width)
        self.pool = nn.MaxPool2d(3, 2, 1)
        widths = [sizes.width << i for i in range(STAGES)]
        outputs = [sizes.width, *(block.expansion * width for width in widths)]
        for i, (width, count) in enumerate(zip(widths, sizes.blocks, strict=True)):
            first = block(outputs[i], width, 1 if i == 0 else 2)
            rest = (block(outputs[i + 1], width, 1) for _ in range(count - 1))
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *rest))
        stem, names = ("conv1.", "bn1."), [f"p{i + 2}" for i in range(STAGES)]
        self.levels = {n: FeatureSpec(outputs[i + 1], 4 << i) for i, n in enumerate(names)}
        self.parts = {n: (*(stem if i == 0 else ()), f"layer{i + 1}.") for i, n in enumerate(names)}
        steps = ((f"layer{i + 1}.{j}.",) for i, count in enumerate(sizes.blocks) for j in range(count))
        self.blocks = (stem, *steps)
        init_convolutions(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (B, ch, H, W) to {"p2": (B, C2, ceil(H/4), ceil(W/4)), ..., "p5": (B, C5, ceil(H/32), ceil(W/32))}."""
        x = self.pool(relu(self.bn1(self.conv1(x))))
        maps = {}
        for i, name in enumerate(self.levels):
            x = maps[name] = self.get_submodule(f"layer{i + 1}")(x)
        return maps
