"""Maps of several sizes out of the one map of a plain vision transformer (spec detr-more 4).

Legend: ``B`` images, ``D`` channels, ``s`` pixels per cell of the map that comes in.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from eyas.types import FeatureSpec

OUT = 256  # channels of every level of the learned pyramid
STRIDES: Mapping[str, int] = MappingProxyType({"p3": 8, "p4": 16, "p5": 32})


class LayerNorm2d(nn.LayerNorm):
    """Normalisation over the channels of each cell: (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Pyramid(nn.Module):
    """From maps (B, D, h, w) of a transformer's last blocks to named levels.

    Attributes:
        taps: how many of the last blocks it looks at.
        levels: channels and stride of every level, from the largest map to the smallest.
    """

    taps: int
    levels: Mapping[str, FeatureSpec]

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Map ``taps`` x (B, D, h, w) to {"p3": (B, C, h s / 8, w s / 8), ...}."""
        raise NotImplementedError


class ViTDetPyramid(Pyramid):
    """The simple feature pyramid of ViTDet (Li et al., 2022): every level by itself out of the last block's map.

    Args:
        width: D.
        stride: s, in pixels.
    """

    taps = 1

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.levels = {name: FeatureSpec(OUT, px) for name, px in STRIDES.items()}
        self.stages = nn.ModuleList(level_of(width, stride / px) for px in STRIDES.values())

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Map 1 x (B, D, h, w) to {"p3": (B, 256, h s / 8, w s / 8), ...}."""
        return {name: stage(maps[-1]) for name, stage in zip(self.levels, self.stages, strict=True)}


def level_of(width: int, factor: float) -> nn.Sequential:
    """Return what brings a map of ``width`` channels to ``factor`` times its size and 256 channels."""
    layers: list[nn.Module] = []
    while factor > 1:
        layers += [LayerNorm2d(width, 1e-6), nn.GELU()] if layers else []
        layers.append(nn.ConvTranspose2d(width, width // 2, 2, 2))
        width, factor = width // 2, factor / 2
    if factor < 1:
        layers.append(nn.MaxPool2d(round(1 / factor)))
    layers += [nn.Conv2d(width, OUT, 1, bias=False), LayerNorm2d(OUT, 1e-6)]
    layers += [nn.Conv2d(OUT, OUT, 3, padding=1, bias=False), LayerNorm2d(OUT, 1e-6)]
    return nn.Sequential(*layers)


class PlainPyramid(Pyramid):
    """The mean of the last two blocks' maps, resized to every level; it has no parameters."""

    taps = 2

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.levels = {name: FeatureSpec(width, px) for name, px in STRIDES.items()}

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Map 2 x (B, D, h, w) to {"p3": (B, D, h s / 8, w s / 8), ...}."""
        x = torch.stack(maps).mean(0)
        h, w = x.shape[-2:]
        return {
            name: interpolate(
                x,
                size=(h * self.stride // level.stride, w * self.stride // level.stride),
                mode="bilinear",
                align_corners=False,
            )
            for name, level in self.levels.items()
        }


PYRAMIDS: Mapping[str, type[ViTDetPyramid] | type[PlainPyramid]] = MappingProxyType(
    {"vitdet": ViTDetPyramid, "plain": PlainPyramid}
)
