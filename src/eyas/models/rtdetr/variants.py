"""The members of the official RT-DETR family, v1 and v2, as sizes and as tables (spec detr 1.1, 1.4, 1.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from eyas.models.backbones import HGNETV2, RESNET_VD, Backbone
from eyas.models.backbones.host import OWN
from eyas.models.backbones.stock import checked_backbone, named_backbone
from eyas.models.rtdetr.decoder import ACTIVATIONS, check_counts
from eyas.models.table import shown
from eyas.names import did_you_mean

ARCH = "rtdetr"  # value of a table's "arch" that means the official layout


@dataclass(frozen=True)
class Variant:
    """Sizes of one member; what is not here is the same for all.

    Args:
        backbone: "vd50" for ResNet-50-vd, "B4" for HGNetv2-B4.
        hidden: channels of the encoder; the decoder is 256 wide in all.
        ffn: inner width of the encoder's attention layers, of which there are ``encoder_layers``.
        expansion: inner width of the encoder's fusion blocks, as a share of ``hidden``.
        decoder_layers: layers that are trained.
        eval_layer: the layer that inference uses, -1 for the last.
        frozen: whether its published training keeps the stem and every normalisation of the backbone as they were.
        ratios: rate of the backbone as a share of the others', in v1 and in v2.
    """

    backbone: str
    hidden: int = 256
    ffn: int = 1024
    encoder_layers: int = 1
    expansion: float = 1.0
    decoder_layers: int = 6
    eval_layer: int = -1
    frozen: bool = True
    ratios: tuple[float, float] = (0.1, 0.1)


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "r18": Variant("vd18", expansion=0.5, decoder_layers=3, frozen=False, ratios=(0.1, 1.0)),
        "r34": Variant("vd34", expansion=0.5, decoder_layers=4, frozen=False, ratios=(0.1, 0.5)),
        "r50m": Variant("vd50", expansion=0.5, eval_layer=2),
        "r50": Variant("vd50"),
        "r101": Variant("vd101", hidden=384, ffn=2048, ratios=(0.01, 0.01)),
        "hgnetv2-l": Variant("B4", ratios=(0.05, 0.05)),
        "hgnetv2-x": Variant("B5", hidden=384, ffn=2048, ratios=(0.01, 0.01)),
        "hgnetv2-h": Variant("B6", hidden=512, ffn=2048, encoder_layers=2, ratios=(0.05, 0.05)),  # no v1 was published
    }
)
CHOICES = {"act": tuple(ACTIVATIONS), "loss": ("varifocal", "matchability")}


def official_table(variant: str, version: int = 1) -> dict[str, Any]:
    """Return a fresh table: plain values, enough to rebuild the model.

    Keys: ``arch``, ``variant``, ``nc``, ``channels``, ``yaml_file``; ``lr_ratio``, the backbone's rate as a share of
    the others'; ``frozen_norms`` and ``freeze_stem``, right only for a model that starts from trained weights;
    ``queries``, ``num_denoising`` and ``eval_layer`` of the decoder, its activation ``act`` ("relu" or "silu") and the
    layers of its position code, ``position_layers``; ``loss`` of the classes ("varifocal" or "matchability");
    ``backbone``, another one than the variant's own, None for that. Version 2 differs in ``lr_ratio`` alone.
    """
    sizes = VARIANTS[variant]
    return {
        "arch": ARCH,
        "variant": variant,
        "nc": 80,
        "channels": 3,
        "yaml_file": f"rtdetr{'v2' if version == 2 else ''}-{variant}.yaml",
        "lr_ratio": sizes.ratios[version - 1],
        "frozen_norms": sizes.frozen,
        "freeze_stem": sizes.frozen,
        "queries": 300,
        "num_denoising": 100,
        "eval_layer": sizes.eval_layer,
        "act": "relu",
        "position_layers": 2,
        "loss": "varifocal",
        "backbone": None,
    }


def _named(variant: str, version: int) -> Callable[[], dict[str, Any]]:
    return lambda: official_table(variant, version)


OFFICIAL: Mapping[str, Callable[[], dict[str, Any]]] = MappingProxyType(
    {f"rtdetr-{v}": _named(v, 1) for v in VARIANTS} | {f"rtdetrv2-{v}": _named(v, 2) for v in VARIANTS}
)
"""Name -> function that returns a fresh table."""


def checked_table(
    table: Mapping[str, Any],
    variants: Iterable[str] = VARIANTS,
    fresh: Callable[[str], dict[str, Any]] = official_table,
) -> dict[str, Any]:
    """Return a table with its defaults filled in.

    Args:
        table: as it was given.
        variants: the names that its ``variant`` may be.
        fresh: variant -> its table, whose keys are those that a table may have.

    Raises:
        ValueError: it names no variant or backbone, has a key that means nothing here, or an impossible value.
    """
    variant = str(table.get("variant"))
    if variant not in variants:
        hint = did_you_mean(variant, variants, cutoff=0.5)
        raise ValueError(f"variant is {shown(variant)}.{hint} There are {', '.join(variants)}.")
    defaults = fresh(variant)
    for key in table:
        if key not in defaults:
            hint = did_you_mean(key, defaults, cutoff=0.5)
            raise ValueError(f"{shown(key)} means nothing in the table of {variant}.{hint}")
    check_counts(table)
    filled = defaults | dict(table)
    if table.get("backbone") is not None:
        filled = defaults | OWN | dict(table) | {"backbone": checked_backbone(table["backbone"])}
    for key, known in CHOICES.items():
        if key in filled and filled[key] not in known:
            raise ValueError(f"{key} is {shown(filled[key])}, and must be {' or '.join(map(repr, known))}.")
    return filled


def build_backbone(what: str | Mapping[str, Any], ch: int = 3) -> Backbone:
    """Return the backbone that a `Variant` calls by its short name, or a table by its entry, from random weights."""
    short = {f"vd{depth}": f"resnet{depth}-vd" for depth in RESNET_VD} | {n: f"hgnetv2-{n.lower()}" for n in HGNETV2}
    return named_backbone(short.get(what, what) if isinstance(what, str) else what, ch)
