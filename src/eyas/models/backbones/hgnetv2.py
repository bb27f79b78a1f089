"""HGNetv2: blocks that keep the output of every layer and join them at the end (spec detr 1.3), built from a table.

From PaddleClas (PP-HGNetV2). Sub-module names are state-dict keys of the official RT-DETRv2 layout; files of D-FINE
differ in a few (`eyas.models.rtdetr.keys`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from eyas.models.backbones.base import Backbone, init_convolutions
from eyas.nn.conv import Fusable
from eyas.nn.conv_norm import fold_norm, is_norm
from eyas.nn.recomputed import Recomputed
from eyas.types import FeatureSpec


@dataclass(frozen=True)
class HGNetV2Spec:
    """One member of the family.

    Args:
        stem: channels inside and at the end of the stem.
        stages: (inner channels, output channels, blocks) of each stage.
        layers: layers in a block.
        lab: whether a learnable scale and shift of two scalars follow every ReLU (small members).
        kernel: side of the depth-wise convolutions in light layers.
    """

    stem: tuple[int, int]
    stages: tuple[tuple[int, int, int], ...]
    layers: int
    lab: bool
    kernel: int = 5


HGNETV2: Mapping[str, HGNetV2Spec] = MappingProxyType(
    {
        "B0": HGNetV2Spec((16, 16), ((16, 64, 1), (32, 256, 1), (64, 512, 2), (128, 1024, 1)), 3, True),
        "B1": HGNetV2Spec((24, 32), ((32, 64, 1), (48, 256, 1), (96, 512, 2), (192, 1024, 1)), 3, True),
        "B2": HGNetV2Spec((24, 32), ((32, 96, 1), (64, 384, 1), (128, 768, 3), (256, 1536, 1)), 4, True),
        "B3": HGNetV2Spec((24, 32), ((32, 128, 1), (64, 512, 1), (128, 1024, 3), (256, 2048, 1)), 5, True),
        "B4": HGNetV2Spec((32, 48), ((48, 128, 1), (96, 512, 1), (192, 1024, 3), (384, 2048, 1)), 6, False),
        "B5": HGNetV2Spec((32, 64), ((64, 128, 1), (128, 512, 2), (256, 1024, 5), (512, 2048, 2)), 6, False),
        "B6": HGNetV2Spec((48, 96), ((96, 192, 2), (192, 512, 3), (384, 1024, 6), (768, 2048, 3)), 6, False),
        "T": HGNetV2Spec((8, 8), ((8, 16, 1), (16, 32, 1), (24, 64, 1), (32, 96, 1)), 2, True),
    }
)
"""Name -> sizes. B4, B5 and B6 are called L, X and H by RT-DETR; T is ours, for tests and small data."""
LIGHT_FROM = 2  # stages from this index on have light layers, those before plain 3x3 ones
_B0 = ((16, 64, 1), (32, 256, 1))  # its first two stages
CUT: Mapping[str, HGNetV2Spec] = MappingProxyType(
    {
        "atto": HGNetV2Spec((16, 16), (*_B0, (64, 256, 1)), 3, True, kernel=3),
        "femto": HGNetV2Spec((16, 16), (*_B0, (64, 512, 1)), 3, True),
        "pico": HGNetV2Spec((16, 16), (*_B0, (64, 512, 2)), 3, True),
    }
)
"""B0 without its last stage, in three sizes, for the smallest members of DEIMv2 (spec detr 4.1): p4 is the last."""


class LearnableAffine(nn.Module):
    """One scale and one shift for a whole map, (B, C, H, W) -> (B, C, H, W); starts as the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return self.scale * x + self.bias


class ConvBN(Fusable):
    """Convolution, normalisation, optional ReLU and affine: (B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s)).

    An even ``k`` pads at the right and bottom only, by a module in front that moves the key to ``conv.1``.
    """

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, act: bool = True, lab: bool = False
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(c1, c2, k, s, k // 2 if k % 2 else 0, groups=g, bias=False)
        self.conv: nn.Module = conv if k % 2 else nn.Sequential(nn.ZeroPad2d((0, k - 1, 0, k - 1)), conv)
        self.bn: nn.Module = nn.BatchNorm2d(c2)
        self.act = nn.ReLU() if act else nn.Identity()
        self.lab = LearnableAffine() if act and lab else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, ceil(H/s), ceil(W/s))."""
        return self.lab(self.act(self.bn(self.conv(x))))

    def fuse(self) -> None:
        """Fold the normalisation into the convolution, for inference only; does nothing the second time."""
        if not is_norm(self.bn):
            return
        name = "conv.1" if isinstance(self.conv, nn.Sequential) else "conv"
        conv: Any = self.get_submodule(name)
        self.set_submodule(name, fold_norm(conv, self.bn))
        self.bn = nn.Identity()


class LightConvBN(nn.Module):
    """1x1 without activation, then depth-wise ``k`` x ``k``: (B, c1, H, W) -> (B, c2, H, W)."""

    def __init__(self, c1: int, c2: int, k: int, lab: bool) -> None:
        super().__init__()
        self.conv1 = ConvBN(c1, c2, act=False)
        self.conv2 = ConvBN(c2, c2, k, g=c2, lab=lab)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        return self.conv2(self.conv1(x))


class Stem(Recomputed):
    """A quarter of the size by two paths, one pooled: (B, ch, H, W) -> (B, c2, ceil(H/4), ceil(W/4))."""

    def __init__(self, ch: int, mid: int, c2: int, lab: bool) -> None:
        super().__init__()
        self.stem1 = ConvBN(ch, mid, 3, 2, lab=lab)
        self.stem2a = ConvBN(mid, mid // 2, 2, lab=lab)
        self.stem2b = ConvBN(mid // 2, mid, 2, lab=lab)
        self.stem3 = ConvBN(2 * mid, mid, 3, 2, lab=lab)
        self.stem4 = ConvBN(mid, c2, lab=lab)
        self.pool = nn.MaxPool2d(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, ch, H, W) to (B, c2, ceil(H/4), ceil(W/4))."""
        x = self.stem1(x)
        pooled = self.pool(pad(x, (0, 1, 0, 1)))
        return self.stem4(self.stem3(torch.cat((pooled, self.stem2b(self.stem2a(x))), 1)))


class HGBlock(Recomputed):
    """A chain of layers whose outputs are all joined and projected: (B, c1, H, W) -> (B, c2, H, W).

    ``light`` is the kernel of light layers, 0 for plain ones.
    """

    def __init__(self, c1: int, mid: int, c2: int, layers: int, *, light: int, residual: bool, lab: bool) -> None:
        super().__init__()
        inputs = (c1, *(mid,) * (layers - 1))
        self.layers = nn.ModuleList(
            LightConvBN(c, mid, light, lab) if light else ConvBN(c, mid, 3, lab=lab) for c in inputs
        )
        self.aggregation_squeeze_conv = ConvBN(c1 + layers * mid, c2 // 2, lab=lab)
        self.aggregation_excitation_conv = ConvBN(c2 // 2, c2, lab=lab)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        y = self.aggregation_excitation_conv(self.aggregation_squeeze_conv(torch.cat(outputs, 1)))
        return x + y if self.residual else y


class HGStage(nn.Module):
    """Blocks of one resolution, after a depth-wise convolution that halves the size in all stages but the first."""

    def __init__(
        self, c1: int, mid: int, c2: int, blocks: int, layers: int, *, down: bool, light: int, lab: bool
    ) -> None:
        super().__init__()
        self.downsample = ConvBN(c1, c1, 3, 2, g=c1, act=False) if down else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                HGBlock(c1 if j == 0 else c2, mid, c2, layers, light=light, residual=j > 0, lab=lab)
                for j in range(blocks)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, ceil(H/2), ceil(W/2)), or of the same size without the convolution."""
        return self.blocks(self.downsample(x))


class HGNetV2(Backbone):
    """HGNetv2 of a name in `HGNETV2`: images (B, ch, H, W) to ``p2`` ... ``p5``; of one in `CUT` to ``p4``."""

    stem_prefix = "stem."

    def __init__(self, name: str, ch: int = 3) -> None:
        super().__init__()
        spec = HGNETV2[name] if name in HGNETV2 else CUT[name]
        self.stem = Stem(ch, *spec.stem, spec.lab)
        widths = (spec.stem[1], *(c2 for _, c2, _ in spec.stages))
        self.stages = nn.ModuleList(
            HGStage(
                widths[i], *stage, spec.layers, down=i > 0, light=spec.kernel if i >= LIGHT_FROM else 0, lab=spec.lab
            )
            for i, stage in enumerate(spec.stages)
        )
        names = [f"p{i + 2}" for i in range(len(spec.stages))]
        self.levels = {n: FeatureSpec(widths[i + 1], 4 << i) for i, n in enumerate(names)}
        self.parts = {n: (*((self.stem_prefix,) if i == 0 else ()), f"stages.{i}.") for i, n in enumerate(names)}
        steps = (_step(i, j) for i, (_, _, blocks) in enumerate(spec.stages) for j in range(blocks))
        self.blocks = ((self.stem_prefix,), *steps)
        init_convolutions(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (B, ch, H, W) to {"p2": (B, C2, ceil(H/4), ceil(W/4)), ..., "p5": (B, C5, ceil(H/32), ceil(W/32))}."""
        x = self.stem(x)
        maps = {}
        for name, stage in zip(self.levels, self.stages, strict=True):
            x = maps[name] = stage(x)
        return maps


def _step(stage: int, block: int) -> tuple[str, ...]:
    """Return the prefixes of a block; the first of a stage includes the convolution that halves the size."""
    own = f"stages.{stage}.blocks.{block}."
    return (f"stages.{stage}.downsample.", own) if stage > 0 and block == 0 else (own,)
