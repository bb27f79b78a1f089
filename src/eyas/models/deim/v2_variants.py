"""The members of DEIMv2 and ECDet as sizes and as tables (spec detr 4, detr-more 8), and two tiny ones of our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from eyas.models.deim.variants import CHANGES
from eyas.models.dfine.variants import Variant as FineVariant
from eyas.models.dfine.variants import table_of
from eyas.models.rtdetr.variants import checked_table
from eyas.models.table import Table

V2_ARCH, EC_ARCH = "deimv2", "ecdet"  # values of a table's "arch" that mean these layouts


@dataclass(frozen=True)
class Variant(FineVariant):
    """Sizes of one member, beside those of D-FINE.

    Args:
        lite: whether its encoder makes two maps out of one, and its box head is taught as a plain one.
        small: whether its encoder has the blocks of the smaller sizes.
    """

    position_layers: int = 3
    layers: int = 4
    lite: bool = False
    small: bool = False


def _lite(backbone: str, width: int, ffn: int, queries: int) -> Variant:
    return Variant(
        backbone, width, expansion=0.34, depth_mult=0.5, layers=3, width=width, decoder_ffn=ffn, points=(4, 2),
        queries=queries, lite=True,
    )  # fmt: skip


def _even(backbone: str, width: int, ffn: int, expansion: float, depth: float, decoder: int, ratio: float) -> Variant:
    return Variant(backbone, width, ffn, expansion, depth, width=width, decoder_ffn=decoder, ratio=ratio)


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "atto": _lite("atto", 64, 160, 100),
        "femto": _lite("femto", 96, 256, 150),
        "pico": _lite("pico", 112, 320, 200),
        "n": Variant("B0", 128, 512, 0.34, 0.5, layers=3, width=128, decoder_ffn=512, points=(6, 6), small=True),
        "s": _even("deimv2-vit-s", 192, 512, 0.34, 0.67, 512, 0.05),
        "m": _even("deimv2-vit-m", 256, 512, 0.67, 1.0, 512, 0.05),
        "l": _even("deimv2-vit-l", 224, 896, 1.0, 1.0, 1792, 0.025),
        "x": Variant(
            "deimv2-vit-x", 256, 1024, 1.25, 1.37, layers=6, width=256, decoder_ffn=2048, ratio=0.02
        ),
        "tiny": Variant(
            "deimv2-vit-tiny", 64, 128, 0.5, 0.34, layers=2, width=64, decoder_ffn=128, points=(2, 3, 2), ratio=1.0,
            queries=100, num_denoising=25,
        ),
    }
)  # fmt: skip
"""Name -> sizes of DEIMv2. ``tiny`` is ours, for tests and small data."""
EC_VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "s": _even("ecvit-s", 192, 512, 0.34, 0.67, 512, 0.05),
        "m": _even("ecvit-m", 256, 512, 0.75, 0.67, 1024, 0.05),
        "l": _even("ecvit-l", 256, 1024, 0.75, 1.0, 1024, 0.01),
        "x": _even("ecvit-x", 256, 2048, 1.5, 1.0, 2048, 0.005),
        "tiny": Variant(
            "ecvit-tiny", 64, 128, 0.5, 0.34, layers=2, width=64, decoder_ffn=128, points=(2, 3, 2), ratio=1.0,
            queries=100, num_denoising=25,
        ),
    }
)  # fmt: skip
"""Name -> sizes of ECDet; ``tiny`` is ours."""


def v2_table(variant: str) -> Table:
    """Return a fresh table of DEIMv2, see `eyas.models.dfine.variants.table_of`."""
    return table_of(VARIANTS[variant], variant, f"deimv2-{variant}") | {"arch": V2_ARCH} | CHANGES


def ec_table(variant: str) -> Table:
    """Return a fresh table of ECDet, see `eyas.models.dfine.variants.table_of`."""
    return table_of(EC_VARIANTS[variant], variant, f"ecdet-{variant}") | {"arch": EC_ARCH} | CHANGES


def checked_v2(table: Mapping[str, Any]) -> Table:
    """Return a table of DEIMv2 with its defaults filled in; raises a ValueError as `checked_table` does."""
    return checked_table(table, VARIANTS, v2_table)


def checked_ec(table: Mapping[str, Any]) -> Table:
    """Return a table of ECDet with its defaults filled in; raises a ValueError as `checked_table` does."""
    return checked_table(table, EC_VARIANTS, ec_table)


V2_TABLES: Mapping[str, Callable[[], Table]] = MappingProxyType({f"deimv2-{v}": partial(v2_table, v) for v in VARIANTS})
EC_TABLES: Mapping[str, Callable[[], Table]] = MappingProxyType(
    {f"ecdet-{v}": partial(ec_table, v) for v in EC_VARIANTS}
)
