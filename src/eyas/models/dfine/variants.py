"""The members of the D-FINE family as sizes and as tables (spec detr 2.1, 2.6, 3.4), and a tiny one of our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from eyas.models.rtdetr.variants import checked_table as checked

ARCH = "dfine"  # value of a table's "arch" that means this layout


@dataclass(frozen=True)
class Variant:
    """Sizes of one member; what is not here is the same for all.

    Args:
        backbone: "B0" for HGNetv2-B0.
        hidden: channels of the encoder.
        ffn: inner width of the encoder's attention layer.
        expansion: inner width of the encoder's fusion blocks as a share of half of ``hidden``.
        depth_mult: factor of the units in each fusion block, 3 at 1.
        layers: of the decoder.
        width: of the decoder, with ``decoder_ffn`` inside its layers.
        position_layers: of the network that codes where a box is.
        points: that a head samples on each level; as many levels, the smallest maps of the backbone.
        scale: reach of the box head, see `eyas.models.dfine.decoder.DFineDecoder`.
        frozen: whether its published training keeps the stem and every normalisation of the backbone as they were.
        ratio: rate of the backbone as a share of the others'.
        queries: boxes of an image.
        num_denoising: denoising queries of an image, about.
    """

    backbone: str
    hidden: int = 256
    ffn: int = 1024
    expansion: float = 1.0
    depth_mult: float = 1.0
    layers: int = 6
    width: int = 256
    decoder_ffn: int = 1024
    position_layers: int = 2
    points: tuple[int, ...] = (3, 6, 3)
    scale: float = 4.0
    frozen: bool = False
    ratio: float = 0.5
    queries: int = 300
    num_denoising: int = 100


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "n": Variant("B0", 128, 512, 0.34, 0.5, layers=3, width=128, decoder_ffn=512, points=(6, 6)),
        "s": Variant("B0", expansion=0.5, depth_mult=0.34, layers=3),
        "m": Variant("B2", depth_mult=0.67, layers=4, ratio=0.1),
        "l": Variant("B4", frozen=True, ratio=0.05),
        "x": Variant("B5", 384, 2048, scale=8.0, frozen=True, ratio=0.01),
        "tiny": Variant(
            "T", 64, 128, 0.5, 0.34, layers=2, width=64, decoder_ffn=128, points=(2, 3, 2), ratio=1.0,
            queries=100, num_denoising=25,
        ),
    }
)  # fmt: skip
"""Name -> sizes. ``tiny`` is ours, for tests and small data."""


def dfine_table(variant: str) -> dict[str, Any]:
    """Return a fresh table of a member, see `table_of`."""
    return table_of(VARIANTS[variant], variant, f"dfine-{variant}")


def table_of(sizes: Variant, variant: str, name: str) -> dict[str, Any]:
    """Return a fresh table of these sizes: plain values, enough to rebuild the model.

    Keys: ``arch``, ``variant``, ``nc``, ``channels``, ``yaml_file``; ``act``, the activation of the decoder; ``loss``
    of the classes, "varifocal" or "matchability"; ``lr_ratio``, the backbone's rate as a share of the others';
    ``frozen_norms`` and ``freeze_stem``, right only for a model that starts from trained weights; ``queries`` and
    ``num_denoising`` of the decoder; ``backbone``, another one than the variant's own, None for that.
    """
    return {
        "arch": ARCH,
        "variant": variant,
        "nc": 80,
        "channels": 3,
        "yaml_file": f"{name}.yaml",
        "act": "relu",
        "loss": "varifocal",
        "lr_ratio": sizes.ratio,
        "frozen_norms": sizes.frozen,
        "freeze_stem": sizes.frozen,
        "queries": sizes.queries,
        "num_denoising": sizes.num_denoising,
        "backbone": None,
    }


def checked_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with its defaults filled in.

    Raises:
        ValueError: it names no variant, has a key that means nothing here, or an impossible value.
    """
    return checked(table, VARIANTS, dfine_table)


def _named(variant: str) -> Callable[[], dict[str, Any]]:
    return lambda: dfine_table(variant)


TABLES: Mapping[str, Callable[[], dict[str, Any]]] = MappingProxyType({f"dfine-{v}": _named(v) for v in VARIANTS})
"""Name -> function that returns a fresh table."""
