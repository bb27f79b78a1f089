"""Plain vision transformers as backbones, in the forms of DINO, MAE, CLIP, DINOv2 and DINOv3 (spec detr-more 3).

Legend: ``B`` images, ``N`` tokens, ``D`` width, ``h`` x ``w`` patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.checkpoint import checkpoint

from eyas.models.backbones.base import Backbone
from eyas.models.backbones.pyramid import PYRAMIDS, Pyramid
from eyas.models.pixels import CLIP, IMAGENET, PixelNorm, per_channel
from eyas.nn.vit import HEAD, Block, Mlp, PatchEmbed, QuickGELU, Rotary, SwiGLU, resized_positions

SPREAD = 0.02  # of random tokens, position codes and matrices, as in the papers


@dataclass(frozen=True)
class Style:
    """What the networks of one pre-training have in common.

    Args:
        images: millions that they were trained on; for ImageNet-1k, 1.28.
        pixels: mean and standard deviation by which pixels are normalised.
        eps: of layer normalisation.
        registers: tokens beside the class token that belong to no place.
        rotary: whether positions are told by turning queries and keys, and no code is added.
        scale: where the factors of what blocks add start; None for blocks without.
        qkv_bias: whether queries, keys and values have a bias.
        norm_first: whether tokens are normalised before the first block, and patches have no bias.
        quick: whether the activation is CLIP's.
        norm_maps: whether the final normalisation is put on the maps that leave.
    """

    images: float = 1.28
    pixels: PixelNorm = IMAGENET
    eps: float = 1e-6
    registers: int = 0
    rotary: bool = False
    scale: float | None = None
    qkv_bias: bool = True
    norm_first: bool = False
    quick: bool = False
    norm_maps: bool = False


PLAIN = Style()
CLIP_STYLE = Style(400, pixels=CLIP, eps=1e-5, norm_first=True, quick=True)
DINOV2 = Style(142, scale=1e-5, norm_maps=True)
DINOV2_REG = Style(142, scale=1e-5, norm_maps=True, registers=4)
DINOV3 = Style(1689, scale=1e-5, norm_maps=True, registers=4, rotary=True, qkv_bias=False, eps=1e-5)


@dataclass(frozen=True)
class ViTSpec:
    """Sizes of one network.

    Args:
        width: D; heads have 64 channels.
        depth: blocks.
        patch: side of a patch in pixels.
        grid: side of the grid of patches that the position code is stored for; 0 where none is.
        style: of its pre-training.
        swiglu: whether the feed-forward parts are gated.
        heads: of the attention; 0 takes ``width / 64``.
        ratio: inner width of the feed-forward parts as a multiple of D.
    """

    width: int
    depth: int
    patch: int
    grid: int
    style: Style = PLAIN
    swiglu: bool = False
    heads: int = 0
    ratio: int = 4

    @property
    def head_count(self) -> int:
        """Heads of the attention."""
        return self.heads or self.width // HEAD

    @property
    def hidden(self) -> int:
        """Inner width of the feed-forward parts; of gated ones, what the published networks have."""
        if self.swiglu and not self.style.rotary:
            return math.ceil(4 * self.width * 2 / 3 / 8) * 8  # DINOv2 g/14: 4096
        return self.ratio * self.width

    @property
    def stride(self) -> int:
        """Pixels of the detector's image under each patch: those of 14 px see an image resized by 14/16."""
        return 16 if self.patch == 14 else self.patch


_TI, _S, _B, _L = (192, 12), (384, 12), (768, 12), (1024, 24)
VITS: Mapping[str, ViTSpec] = MappingProxyType(
    {
        "vit-tiny": ViTSpec(64, 2, 16, 4, heads=2),  # ours, for tests
        "vit-ti16": ViTSpec(*_TI, 16, 14),
        "vit-s16": ViTSpec(*_S, 16, 14),
        "vit-b16": ViTSpec(*_B, 16, 14),
        "vit-l16": ViTSpec(*_L, 16, 14),
        "vit-s8": ViTSpec(*_S, 8, 28),
        "vit-b8": ViTSpec(*_B, 8, 28),
        "vit-b16-clip": ViTSpec(*_B, 16, 14, CLIP_STYLE),
        "vit-b32-clip": ViTSpec(*_B, 32, 7, CLIP_STYLE),
        "vit-l14-clip": ViTSpec(*_L, 14, 16, CLIP_STYLE),
        "vit-s14-dinov2": ViTSpec(*_S, 14, 37, DINOV2),
        "vit-b14-dinov2": ViTSpec(*_B, 14, 37, DINOV2),
        "vit-l14-dinov2": ViTSpec(*_L, 14, 37, DINOV2),
        "vit-g14-dinov2": ViTSpec(1536, 40, 14, 37, DINOV2, swiglu=True),
        "vit-s14-dinov2-reg": ViTSpec(*_S, 14, 37, DINOV2_REG),
        "vit-b14-dinov2-reg": ViTSpec(*_B, 14, 37, DINOV2_REG),
        "vit-l14-dinov2-reg": ViTSpec(*_L, 14, 37, DINOV2_REG),
        "vit-g14-dinov2-reg": ViTSpec(1536, 40, 14, 37, DINOV2_REG, swiglu=True),
        "vit-s16-dinov3": ViTSpec(*_S, 16, 0, DINOV3),
        "vit-s16plus-dinov3": ViTSpec(*_S, 16, 0, DINOV3, swiglu=True),
        "vit-b16-dinov3": ViTSpec(*_B, 16, 0, DINOV3),
        "vit-l16-dinov3": ViTSpec(*_L, 16, 0, DINOV3),
    }
)
"""Name -> sizes. Names without a pre-training have the form that DINO, MAE and supervised ViTs share."""


class Features(NamedTuple):
    """What some blocks make of an image; normalised where asked for."""

    maps: list[Tensor]  # (B, D, h, w) after each of the last blocks
    tokens: Tensor  # (B, 1 + registers, D) after the last block


class VisionTransformer(nn.Module):
    """Patches and a class token through pre-norm blocks; nothing after them but an optional normalisation.

    Args:
        spec: sizes.
        ch: channels of the images.
        final_norm: whether what leaves is normalised; else that layer does not exist.
    """

    mean: Tensor
    std: Tensor
    undecayed = frozenset({"cls_token", "reg_token", "pos_embed"})

    def __init__(self, spec: ViTSpec, ch: int = 3, final_norm: bool = True) -> None:
        super().__init__()
        style, width = spec.style, spec.width
        norm = partial(nn.LayerNorm, width, style.eps)
        self.spec, self.recompute = spec, False
        for name, values in zip(("mean", "std"), style.pixels, strict=True):
            self.register_buffer(name, torch.tensor(per_channel(values, ch)).view(ch, 1, 1))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.reg_token = nn.Parameter(torch.zeros(1, style.registers, width)) if style.registers else None
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + spec.grid**2, width)) if spec.grid else None
        self.patch_embed = PatchEmbed(ch, width, spec.patch, bias=not style.norm_first)
        self.rope_embed = Rotary(width // spec.head_count) if style.rotary else None
        self.norm_pre = norm() if style.norm_first else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(width, spec.head_count, feed_forward(spec), style.eps, style.qkv_bias, style.scale)
            for _ in range(spec.depth)
        )
        self.norm = norm() if final_norm else nn.Identity()
        self.start()

    def start(self) -> None:
        """Take random values: normal ones of a small spread, cut at two of it; biases 0."""
        for token in (self.cls_token, self.reg_token, self.pos_embed):
            if token is not None:
                nn.init.trunc_normal_(token, std=SPREAD, a=-2 * SPREAD, b=2 * SPREAD)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.trunc_normal_(m.weight, std=SPREAD, a=-2 * SPREAD, b=2 * SPREAD)
                if m.bias is not None:
                    nn.init.zeros_(m.bias)

    def forward(self, x: Tensor, taps: int | tuple[int, ...] = 1) -> Features:
        """Map images (B, ch, H, W) in [0, 1] to what the last ``taps`` blocks, or those of an index, make of patches.

        What a side has beyond whole patches is not seen.
        """
        patches = self.patch_embed((x - self.mean) / self.std)
        h, w = patches.shape[-2:]
        tokens = self.with_positions(patches.flatten(2).transpose(1, 2), h, w)
        turn = None if self.rope_embed is None else self.rope_embed(h, w)
        maps, first, count = [], tokens.shape[1] - h * w, len(self.blocks)
        wanted = range(count - taps, count) if isinstance(taps, int) else taps
        for i, block in enumerate(self.blocks):
            tokens = self.through(block, tokens, turn)
            if i in wanted:
                out = self.norm(tokens)
                maps.append(out[:, first:].transpose(1, 2).unflatten(2, (h, w)))
        return Features(maps, out[:, :first])

    def with_positions(self, patches: Tensor, h: int, w: int) -> Tensor:
        """Return (B, 1 + registers + h w, D) of patches (B, h w, D): class token, registers, patches."""
        tokens = torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), 1)
        if self.pos_embed is not None:
            tokens = tokens + resized_positions(self.pos_embed, h, w).to(tokens.dtype)
        if self.reg_token is not None:
            registers = self.reg_token.expand(patches.shape[0], -1, -1)
            tokens = torch.cat((tokens[:, :1], registers, tokens[:, 1:]), 1)
        return self.norm_pre(tokens)

    def through(self, block: nn.Module, tokens: Tensor, turn: Tensor | None) -> Tensor:
        """Return what a block makes of tokens (B, N, D); under ``recompute`` it is made again for the gradient."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, tokens, turn, use_reentrant=False)
        return block(tokens, turn)


def feed_forward(spec: ViTSpec) -> nn.Module:
    """Return the feed-forward part of a block."""
    if spec.swiglu:
        return SwiGLU(spec.width, spec.hidden)
    return Mlp(spec.width, spec.hidden, QuickGELU() if spec.style.quick else nn.GELU())


class ViTBackbone(Backbone):
    """A plain transformer and a pyramid: images (B, ch, H, W), sides multiples of 32, to ``p3``, ``p4``, ``p5``.

    Only the transformer is the backbone to freezing and learning rates; the pyramid is new wherever it is used, and
    learns with the neck.

    Args:
        name: one of `VITS`.
        ch: channels of the images.
        pyramid: one of `PYRAMIDS`.
        final_norm: whether the final normalisation is put on the maps; None as is usual for the network.
    """

    kind = "ViT"
    stem_prefix = "vit.patch_embed."
    body = ("vit.",)
    adapter = ("pyramid.",)

    def __init__(self, name: str, ch: int = 3, pyramid: str = "vitdet", final_norm: bool | None = None) -> None:
        super().__init__()
        spec = VITS[name]
        vit = VisionTransformer(spec, ch, spec.style.norm_maps if final_norm is None else final_norm)
        self.assemble(name, vit, PYRAMIDS[pyramid](spec.width, spec.stride))

    def assemble(self, name: str, vit: VisionTransformer, pyramid: Pyramid) -> None:
        """Be made of a transformer and a pyramid."""
        spec = vit.spec
        self.name, self.patch, self.stride = name, spec.patch, spec.stride
        self.images = spec.style.images
        self.vit, self.pyramid = vit, pyramid
        self.levels = self.pyramid.levels
        self.parts = {"vit": ("vit.",)}
        stem = ("patch_embed.", "cls_token", "reg_token", "pos_embed", "norm_pre.")
        blocks = ((f"vit.blocks.{i}.",) for i in range(spec.depth))
        self.blocks = (tuple(f"vit.{part}" for part in stem), *blocks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (B, ch, H, W) to {"p3": (B, C, H/8, W/8), "p4": (B, C, H/16, W/16), "p5": (B, C, H/32, W/32)}."""
        if self.stride != self.patch:  # so that a patch of 14 px covers 16 px of the image, and cells lie as usual
            size = [side // self.stride * self.patch for side in x.shape[-2:]]
            x = interpolate(x, size=size, mode="bilinear", align_corners=False)
        return self.pyramid(self.vit(x, self.pyramid.taps).maps)

    def save_memory(self, on: bool = True) -> bool:
        self.saves_memory = self.vit.recompute = on
        return True
