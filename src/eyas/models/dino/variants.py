"""The members of the DINO family as sizes and as tables (spec detr 5, detr-more 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from eyas.models.rtdetr.variants import checked_table as checked

ARCH = "dino"  # value of a table's "arch"


@dataclass(frozen=True)
class Variant:
    """Sizes of one member, and what tells the layouts apart that weights were published in.

    Args:
        backbone: its own, see `build_backbone`.
        hidden: channels of encoder and decoder.
        ffn: inner width of their layers; ``heads`` and ``queries`` are theirs too.
        encoder_layers, decoder_layers: how many there are.
        temperature, offset: of the encoder's position code.
        box_noise: of denoising boxes.
        shared_heads: whether all decoder layers have the same outputs.
        spare_labels: rows of the label table beyond the classes.
        frozen: whether its published training keeps the stem and every normalisation of the backbone as they were.
        freeze_p2: whether it keeps the first stage of the backbone too.
    """

    backbone: str = "resnet50"
    hidden: int = 256
    ffn: int = 2048
    heads: int = 8
    queries: int = 900
    encoder_layers: int = 6
    decoder_layers: int = 6
    temperature: float = 10_000.0
    offset: float = -0.5
    box_noise: float = 1.0
    shared_heads: bool = False
    spare_labels: int = 0
    frozen: bool = True
    freeze_p2: bool = False


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "r50": Variant(),  # as detrex has it, whose weights can be fetched
        "r50-original": Variant(
            temperature=20.0, offset=0.0, box_noise=0.4, shared_heads=True, spare_labels=1, freeze_p2=True
        ),
        "tiny": Variant("resnet10-16", 64, 128, 4, 100, encoder_layers=2, decoder_layers=3, frozen=False),
    }
)


def dino_table(variant: str) -> dict[str, Any]:
    """Return a fresh table: plain values, enough to rebuild the model.

    Keys: ``arch``, ``variant``, ``nc``, ``channels``, ``yaml_file``; ``lr_ratio``, the backbone's rate as a share of
    the others'; ``frozen_norms``, ``freeze_stem`` and ``freeze_p2``, right only for a model that starts from trained
    weights; ``queries`` and ``num_denoising`` of the decoder; ``backbone``, another one than the variant's own, None
    for that.
    """
    sizes = VARIANTS[variant]
    return {
        "arch": ARCH,
        "variant": variant,
        "nc": 80,
        "channels": 3,
        "yaml_file": f"dino-{variant}.yaml",
        "lr_ratio": 0.1,
        "frozen_norms": sizes.frozen,
        "freeze_stem": sizes.frozen,
        "freeze_p2": sizes.freeze_p2,
        "queries": sizes.queries,
        "num_denoising": 100,
        "backbone": None,
    }


def _named(variant: str) -> Callable[[], dict[str, Any]]:
    return lambda: dino_table(variant)


TABLES: Mapping[str, Callable[[], dict[str, Any]]] = MappingProxyType({f"dino-{v}": _named(v) for v in VARIANTS})
"""Name -> function that returns a fresh table."""


def checked_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with its defaults filled in.

    Raises:
        ValueError: it names no variant or backbone, has a key that means nothing here, or an impossible value.
    """
    return checked(table, VARIANTS, dino_table)
