"""Files of vision transformers, recognised by the keys in them and read under our names (spec detr-more 3.2).

Our names are those that DINO, MAE, DINOv2 and timm share. Where a file is from is never asked of its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from eyas.models.backbones.vit import VITS, ViTSpec

Renames = tuple[tuple[re.Pattern[str], str], ...]


class UnknownViTError(ValueError):
    """These are no weights of a vision transformer, or of another one than is asked for."""


@dataclass(frozen=True)
class Layout:
    """One way of naming the tensors.

    Args:
        patches: what the name of the patches' kernel ends with.
        mark: what else there is, behind the same prefix.
        renames: patterns of names, and ours.
    """

    patches: str
    mark: str
    renames: Renames


def _renames(*pairs: tuple[str, str]) -> Renames:
    return tuple((re.compile(pattern), ours) for pattern, ours in pairs)


_BLOCK = r"^(blocks\.\d+\.)"
_HF_LAYER = (r"^(?:model\.)?(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1.")
_HF_INNER = (
    (_BLOCK + r"(?:layernorm_before|layer_norm1|norm1)\.", r"\1norm1."),
    (_BLOCK + r"(?:layernorm_after|layer_norm2|norm2)\.", r"\1norm2."),
    (_BLOCK + r"(?:attention\.attention|attention|self_attn)\.(?:query|q_proj)\.", r"\1attn.q."),
    (_BLOCK + r"(?:attention\.attention|attention|self_attn)\.(?:key|k_proj)\.", r"\1attn.k."),
    (_BLOCK + r"(?:attention\.attention|attention|self_attn)\.(?:value|v_proj)\.", r"\1attn.v."),
    (_BLOCK + r"(?:attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.", r"\1attn.proj."),
    (_BLOCK + r"(?:intermediate\.dense|mlp\.up_proj)\.", r"\1mlp.fc1."),
    (_BLOCK + r"(?:output\.dense|mlp\.down_proj)\.", r"\1mlp.fc2."),
    (_BLOCK + r"mlp\.gate_proj\.", r"\1mlp.gate."),
    (_BLOCK + r"mlp\.weights_in\.", r"\1mlp.w12."),
    (_BLOCK + r"mlp\.weights_out\.", r"\1mlp.w3."),
    (_BLOCK + r"layer_scale([12])\.lambda1$", r"\1ls\2.gamma"),
)  # fmt: skip
_HF_NORMS = (
    (r"^(?:layernorm|post_layernorm|norm)\.", "norm."),
    (r"^pre_lay(?:r|er)norm\.", "norm_pre."),
)

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "patch_embed.proj.weight",
        "cls_token",
        _renames(
            (r"^(?:register_tokens|storage_tokens)$", "reg_token"),
            (_BLOCK + r"gamma_([12])$", r"\1ls\2.gamma"),
            (_BLOCK + r"mlp\.(?:fc1_g|w1)\.", r"\1mlp.gate."),
            (_BLOCK + r"mlp\.(?:fc1_x|w2)\.", r"\1mlp.fc1."),
        ),
    ),
    Layout(
        "conv1.weight",
        "class_embedding",
        _renames(
            (r"^conv1\.", "patch_embed.proj."),
            (r"^class_embedding$", "cls_token"),
            (r"^positional_embedding$", "pos_embed"),
            (r"^ln_pre\.", "norm_pre."),
            (r"^ln_post\.", "norm."),
            (r"^transformer\.resblocks\.(\d+)\.", r"blocks.\1."),
            (_BLOCK + r"ln_([12])\.", r"\1norm\2."),
            (_BLOCK + r"attn\.in_proj_", r"\1attn.qkv."),
            (_BLOCK + r"attn\.out_proj\.", r"\1attn.proj."),
            (_BLOCK + r"mlp\.c_fc\.", r"\1mlp.fc1."),
            (_BLOCK + r"mlp\.c_proj\.", r"\1mlp.fc2."),
        ),
    ),
    Layout(
        "embeddings.patch_embeddings.projection.weight",
        "embeddings.cls_token",
        _renames(
            (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^embeddings\.position_embeddings$", "pos_embed"),
            (r"^embeddings\.register_tokens$", "reg_token"),
            (r"^embeddings\.", ""),
            _HF_LAYER,
            *_HF_INNER,
            *_HF_NORMS,
        ),
    ),
    Layout(
        "embeddings.patch_embedding.weight",
        "embeddings.class_embedding",
        _renames(
            (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
            (r"^embeddings\.class_embedding$", "cls_token"),
            (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
            _HF_LAYER,
            *_HF_INNER,
            *_HF_NORMS,
        ),
    ),
    Layout(
        "embeddings.patch_embeddings.weight",
        "embeddings.cls_token",
        _renames(
            (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
            (r"^embeddings\.register_tokens$", "reg_token"),
            (r"^embeddings\.", ""),
            _HF_LAYER,
            *_HF_INNER,
            *_HF_NORMS,
        ),
    ),
)
# What belongs to pre-training, or to other uses of the network.
LEFT = re.compile(
    r"^(mask_token|head\.|heads\.|fc\.|fc_norm\.|proj$|decoder_|decoder\.|classifier\.|pooler\.|local_cls_norm\.)"
    r"|(position_ids|bias_mask|relative_position_index)$"
)
WRAPPERS = ("teacher", "ema", "module", "model", "state_dict", "student")  # of dictionaries inside a file


@dataclass(frozen=True)
class Origin:
    """Where weights are from, as far as it shows in them.

    Attributes:
        name: of the pre-training.
        licence: of the published weights; "" if that cannot be known.
        source: who published them.
        trained_on: with what.
    """

    name: str
    licence: str
    source: str
    trained_on: str


CC_BY_NC = "CC-BY-NC-4.0"
DINOV3_LICENCE = "DINOv3 License"
ORIGINS = {
    "DINOv3": Origin("DINOv3", DINOV3_LICENCE, "github.com/facebookresearch/dinov3", "LVD-1689M"),
    "DINOv2": Origin("DINOv2", "Apache-2.0", "github.com/facebookresearch/dinov2", "LVD-142M"),
    "CLIP": Origin("CLIP", "MIT", "github.com/openai/CLIP", "400 million pairs of images and texts"),
    "MAE": Origin("MAE", CC_BY_NC, "github.com/facebookresearch/mae", "ImageNet-1k"),
    "DINO": Origin("DINO", "Apache-2.0", "github.com/facebookresearch/dino", "ImageNet-1k"),
    "ViT": Origin("ViT", "", "DINO, timm or others: their keys are alike", ""),
}


@dataclass(frozen=True)
class ReadViT:
    """Weights under our names, and what they are of."""

    state: dict[str, Tensor]
    origin: Origin
    width: int
    depth: int
    patch: int
    registers: int
    rotary: bool
    swiglu: bool
    norm_first: bool
    scaled: bool

    def fits(self, spec: ViTSpec) -> bool:
        """Whether a network of these sizes is what the weights are of; the grid of positions may be another."""
        style = spec.style
        wanted = (spec.width, spec.depth, spec.patch, style.registers, style.rotary, spec.swiglu)
        found = (self.width, self.depth, self.patch, self.registers, self.rotary, self.swiglu)
        return wanted == found and (style.norm_first, style.scale is not None) == (self.norm_first, self.scaled)

    def names(self) -> list[str]:
        """Return the names of the backbones that the weights fit."""
        return [name for name, spec in VITS.items() if self.fits(spec)]

    def __str__(self) -> str:
        return f"{self.origin.name}, {self.depth} blocks of {self.width} channels, patches of {self.patch} px"


def read_vit(content: object) -> ReadViT:
    """Return the weights of a vision transformer in what a file holds: tensors by name, or dictionaries of those.

    Raises:
        UnknownViTError: there are none.
    """
    given = next(states(content, ()), None)
    if given is None:
        raise UnknownViTError("these are no weights of a vision transformer: no kernel of patches with a class token")
    path, state, layout, prefix = given
    bare = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    pretraining = any(key.startswith(("decoder_", "decoder.")) for key in state)
    renamed = {our_name(key, layout.renames): value for key, value in bare.items()}
    ours = fused({key: value for key, value in renamed.items() if not LEFT.search(key)})
    width, _, patch, _ = ours["patch_embed.proj.weight"].shape
    blocks = [int(key.split(".")[1]) for key in ours if key.startswith("blocks.")]
    ours = with_class_row(shaped(ours, width))
    found = ReadViT(
        state=ours,
        origin=ORIGINS["ViT"],
        width=width,
        patch=patch,
        depth=max(blocks, default=-1) + 1,
        registers=ours["reg_token"].shape[1] if "reg_token" in ours else 0,
        rotary="pos_embed" not in ours,
        swiglu="blocks.0.mlp.w12.weight" in ours,
        norm_first="norm_pre.weight" in ours,
        scaled="blocks.0.ls1.gamma" in ours,
    )
    masked = pretraining or is_sine_code(ours.get("pos_embed"))
    name = origin_of(found, by_teacher="teacher" in path or "student" in path, masked=masked)
    return replace(found, origin=ORIGINS[name])


class Found(NamedTuple):
    """Tensors of a transformer: where they lie in nested dictionaries, they, their layout, what leads their names."""

    path: tuple[str, ...]
    state: dict[str, Tensor]
    layout: Layout
    prefix: str


def states(content: object, path: tuple[str, ...]) -> Iterator[Found]:
    """Yield every transformer in nested dictionaries, averaged ones first."""
    if not isinstance(content, Mapping):
        return
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    for layout in LAYOUTS:
        for key in state:
            prefix = key.removesuffix(layout.patches)
            if key.endswith(layout.patches) and prefix + layout.mark in state and (not prefix or prefix[-1] == "."):
                yield Found(path, state, layout, prefix)
    for name in WRAPPERS:
        yield from states(content.get(name), (*path, name))


def our_name(key: str, renames: Renames) -> str:
    """Return what we call a tensor, after all renames that meet its name."""
    for pattern, ours in renames:
        key = pattern.sub(ours, key)
    return key


def fused(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with queries, keys and values of one tensor, in this order, and the halves of gated parts too."""
    ours = dict(state)
    for key in state:
        if match := re.fullmatch(r"(blocks\.\d+\.attn\.)q\.(weight|bias)", key):
            lead, kind = match.groups()
            rows = [ours.pop(f"{lead}{part}.{kind}", None) for part in "qkv"]
            ours[f"{lead}qkv.{kind}"] = torch.cat([torch.zeros_like(state[key]) if r is None else r for r in rows])
        elif match := re.fullmatch(r"(blocks\.\d+\.mlp\.)gate\.(weight|bias)", key):
            lead, kind = match.groups()
            ours[f"{lead}w12.{kind}"] = torch.cat((ours.pop(key), ours.pop(f"{lead}fc1.{kind}")))
    for key in list(ours):  # what follows a gated part is called as if it were not gated, in some files
        lead, _, kind = key.rpartition("fc2.")
        if lead and f"{lead}w12.{kind}" in ours:
            ours[f"{lead}w3.{kind}"] = ours.pop(key)
    return ours


def shaped(state: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Return a state whose tokens and positions are (1, count, width), as ours are."""
    tokens = ("cls_token", "reg_token", "pos_embed")
    return {key: value.reshape(1, -1, width) if key in tokens else value for key, value in state.items()}


def with_class_row(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state whose position code has a row for the class token: 0 where it is a part of the token already."""
    code = state.get("pos_embed")
    if code is None or math.isqrt(code.shape[1]) ** 2 != code.shape[1]:
        return state
    return state | {"pos_embed": torch.cat((torch.zeros_like(code[:, :1]), code), 1)}


def is_sine_code(code: Tensor | None) -> bool:
    """Whether a position code is the fixed one of sines and cosines, as MAE has it: pairs that add up to 1."""
    if code is None or bool(code[0, 0].any()):
        return False
    return torch.allclose(code[0, 1:].float().square().sum(-1), torch.tensor(code.shape[-1] / 2), rtol=1e-2)


def origin_of(found: ReadViT, *, by_teacher: bool, masked: bool) -> str:
    """Return the name of the pre-training, a key of `ORIGINS`."""
    if found.rotary:
        return "DINOv3"
    if found.norm_first:
        return "CLIP"
    if found.scaled:
        return "DINOv2"
    if masked:
        return "MAE"
    return "DINO" if by_teacher else "ViT"


def fitted(found: ReadViT, name: str, spec: ViTSpec) -> dict[str, Tensor]:
    """Return the tensors of weights for a network of one of `VITS`.

    Raises:
        UnknownViTError: they are of another one, which is named; or hold what that network has no place for.
    """
    if not found.fits(spec):
        others = found.names()
        then = f"write backbone={others[0]}" if others else f"there are {', '.join(VITS)}"
        raise UnknownViTError(f"these are weights of {found}, and the backbone is {name}: {then}.")
    state = dict(found.state)
    for key in [key for key in state if key.endswith("attn.qkv.bias") and not spec.style.qkv_bias]:
        if bool(state.pop(key).any()):
            raise UnknownViTError(f"{key} is not 0, and {name} has no such bias")
    return state
