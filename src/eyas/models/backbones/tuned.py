"""The backbones of DEIMv2 and ECDet: small transformers, and what makes maps for a detector of them (spec detr 4.2).

DEIMv2 has a small convolutional network beside the transformer, which sees what is finer than patches (STA); ECDet sees
it before, by a stem of convolutions in place of patches. Both are built from a description, not from others' code.

Legend: ``B`` images, ``D`` width of the transformer, ``h`` x ``w`` patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear, max_pool2d

from eyas.models.backbones.base import Backbone
from eyas.models.backbones.pyramid import STRIDES, PlainPyramid, Pyramid
from eyas.models.backbones.vit import DINOV3, Style, VisionTransformer, ViTBackbone, ViTSpec
from eyas.nn.conv_norm import ConvNorm
from eyas.types import FeatureSpec


@dataclass(frozen=True)
class Tuned:
    """One backbone.

    Args:
        spec: of the transformer.
        out: channels of the levels.
        taps: blocks whose maps make p3, p4 and p5, for those with a network beside the transformer.
        detail: channels that this begins with; 0 for none, and a stem of convolutions.
    """

    spec: ViTSpec
    out: int
    taps: tuple[int, ...] = ()
    detail: int = 0


DISTILLED = Style(rotary=True)
FINE_TUNED = replace(DINOV3, qkv_bias=True)
EC = Style(rotary=True, registers=1)
_S, _EVEN, _LATE = (384, 12, 16, 0), (3, 7, 11), (5, 8, 11)
TUNED: Mapping[str, Tuned] = MappingProxyType(
    {
        "deimv2-vit-s": Tuned(ViTSpec(192, 12, 16, 0, DISTILLED), 192, _EVEN, 16),
        "deimv2-vit-m": Tuned(ViTSpec(256, 12, 16, 0, DISTILLED), 256, _EVEN, 16),
        "deimv2-vit-l": Tuned(ViTSpec(*_S, FINE_TUNED), 224, _LATE, 32),
        "deimv2-vit-x": Tuned(ViTSpec(*_S, FINE_TUNED, swiglu=True), 256, _LATE, 64),
        "deimv2-vit-tiny": Tuned(ViTSpec(64, 3, 16, 0, DISTILLED, heads=2), 64, (0, 1, 2), 8),  # ours, as is the last
        "ecvit-s": Tuned(ViTSpec(192, 12, 16, 0, EC), 192),
        "ecvit-m": Tuned(ViTSpec(256, 12, 16, 0, EC), 256),
        "ecvit-l": Tuned(ViTSpec(*_S, EC), 256),
        "ecvit-x": Tuned(ViTSpec(*_S, EC, ratio=6), 256),
        "ecvit-tiny": Tuned(ViTSpec(64, 2, 16, 0, EC, heads=2), 64),
    }
)
"""Name -> what it is."""


class KeysUnbiased(nn.Linear):
    """A linear layer to queries, keys and values, (..., D) -> (..., 3 D), whose bias is none for keys, as DINOv3's."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., 3 D)."""
        queries, keys, values = self.bias.chunk(3)
        return linear(x, self.weight, torch.cat((queries, 0 * keys, values)))


class ConvStem(nn.Module):
    """Patches of 16 px by four convolutions: (B, ch, H, W) -> (B, D, H / 16, W / 16)."""

    def __init__(self, ch: int, width: int) -> None:
        super().__init__()
        widths = (ch, width // 8, width // 4, width // 2)
        self.convs = nn.ModuleList(ConvNorm(widths[i], widths[i + 1], 3, 2, nn.ReLU()) for i in range(3))
        self.proj = nn.Conv2d(widths[-1], width, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, ch, H, W) to (B, D, H / 16, W / 16)."""
        for conv in self.convs:
            x = conv(x)
        return self.proj(x)


class StemmedTransformer(VisionTransformer):
    """A `VisionTransformer` with a `ConvStem`, registers and no class token."""

    undecayed = frozenset({"reg_token"})

    def __init__(self, spec: ViTSpec, ch: int = 3) -> None:
        super().__init__(spec, ch, final_norm=False)
        del self.cls_token
        self.patch_embed = ConvStem(ch, spec.width)  # type: ignore[assignment]

    def with_positions(self, patches: Tensor, h: int, w: int) -> Tensor:
        """Return (B, registers + h w, D) of patches (B, h w, D): registers, patches."""
        assert self.reg_token is not None
        return torch.cat((self.reg_token.expand(patches.shape[0], -1, -1), patches), 1)


class DetailPyramid(Pyramid):
    """Maps of a transformer, each resized to one level, beside maps of a small convolutional network on the image.

    Args:
        ch: channels of the images.
        width: D.
        detail: channels that the small network begins with.
        out: channels of the levels.
    """

    taps = 3

    def __init__(self, ch: int, width: int, detail: int, out: int) -> None:
        super().__init__()
        widths = (detail, 2 * detail, 4 * detail, 4 * detail)
        self.levels = {name: FeatureSpec(out, px) for name, px in STRIDES.items()}
        self.stem = ConvNorm(ch, detail, 3, 2, nn.GELU())
        self.steps = nn.ModuleList(ConvNorm(widths[i], widths[i + 1], 3, 2) for i in range(3))
        self.mix = nn.ModuleList(ConvNorm(width + c, out) for c in widths[1:])
        self.act = nn.GELU()

    def details(self, image: Tensor) -> list[Tensor]:
        """Return maps (B, 2 c, H/8, W/8), (B, 4 c, H/16, W/16) and (B, 4 c, H/32, W/32) of images (B, ch, H, W)."""
        x = max_pool2d(self.stem(image), 3, 2, 1)
        maps = []
        for i, step in enumerate(self.steps):
            x = step(self.act(x) if i else x)  # the first one's input has been activated in the stem
            maps.append(x)
        return maps

    def joined(self, maps: list[Tensor], image: Tensor) -> dict[str, Tensor]:
        """Map 3 x (B, D, h, w) and images (B, ch, H, W) to {"p3": (B, out, H/8, W/8), ...}."""
        out = {}
        for name, x, detail, mix in zip(self.levels, maps, self.details(image), self.mix, strict=True):
            x = interpolate(x, size=detail.shape[-2:], mode="bilinear", align_corners=False)
            out[name] = mix(torch.cat((x, detail), 1))
        return out


class ProjectedPyramid(PlainPyramid):
    """`PlainPyramid` with projections to ``out`` channels: of all levels, or of the smallest map where D is that."""

    def __init__(self, width: int, stride: int, out: int) -> None:
        super().__init__(width, stride)
        count = 1 if width == out else len(self.levels)
        self.levels = {name: FeatureSpec(out, px) for name, px in STRIDES.items()}
        self.projector = nn.ModuleList(ConvNorm(width, out) for _ in range(count))

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Map 2 x (B, D, h, w) to {"p3": (B, out, h s / 8, w s / 8), ...}."""
        levels = super().forward(maps)
        projected = list(levels)[-len(self.projector) :]
        return levels | {name: layer(levels[name]) for name, layer in zip(projected, self.projector, strict=True)}


class DetailedViT(ViTBackbone):
    """A transformer with a `DetailPyramid`, see `ViTBackbone`: those in `TUNED` that have one."""

    pyramid: DetailPyramid

    def __init__(self, name: str, ch: int = 3) -> None:
        Backbone.__init__(self)  # a ViTBackbone of another table
        tuned = TUNED[name]
        style = tuned.spec.style
        vit = VisionTransformer(tuned.spec, ch, style.norm_maps)
        if style is FINE_TUNED:
            for i in range(tuned.spec.depth):
                qkv = KeysUnbiased(tuned.spec.width, 3 * tuned.spec.width)
                vit.set_submodule(f"blocks.{i}.attn.qkv", qkv)
            vit.start()
        self.taps = tuned.taps
        self.assemble(name, vit, DetailPyramid(ch, tuned.spec.width, tuned.detail, tuned.out))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (B, ch, H, W) to {"p3": (B, C, H/8, W/8), "p4": (B, C, H/16, W/16), "p5": (B, C, H/32, W/32)}."""
        return self.pyramid.joined(self.vit(x, self.taps).maps, (x - self.vit.mean) / self.vit.std)


class StemmedViT(ViTBackbone):
    """A `StemmedTransformer` with a `ProjectedPyramid`, see `ViTBackbone`: those in `TUNED` without details."""

    def __init__(self, name: str, ch: int = 3) -> None:
        Backbone.__init__(self)  # a ViTBackbone of another table
        spec = TUNED[name].spec
        self.assemble(name, StemmedTransformer(spec, ch), ProjectedPyramid(spec.width, spec.patch, TUNED[name].out))


def tuned_backbone(name: str, ch: int = 3) -> ViTBackbone:
    """Return a backbone of `TUNED`, from random weights."""
    return (DetailedViT if TUNED[name].detail else StemmedViT)(name, ch)
