"""The members of the DEIM family: tables of D-FINE and RT-DETRv2 with another activation and class loss (detr 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from eyas.models.dfine.variants import VARIANTS as DFINE
from eyas.models.dfine.variants import dfine_table
from eyas.models.rtdetr.variants import VARIANTS as RTDETR
from eyas.models.rtdetr.variants import Variant, checked_table, official_table
from eyas.models.table import Table

FINE_ARCH, SET_ARCH = "deim-dfine", "deim-rtdetr"  # values of a table's "arch" that mean these layouts
# Nothing of the backbone is frozen, whatever it starts from.
CHANGES = {"act": "silu", "loss": "matchability", "frozen_norms": False, "freeze_stem": False}
SET_VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {name: RTDETR[name] for name in ("r18", "r34", "r50", "r101")}
    | {"r50m": replace(RTDETR["r50m"], decoder_layers=3, eval_layer=-1)}
)


def fine_table(variant: str) -> Table:
    """Return a fresh table on D-FINE, see `eyas.models.dfine.variants.dfine_table`."""
    name = "deim-tiny" if variant == "tiny" else f"deim-dfine-{variant}"
    return dfine_table(variant) | {"arch": FINE_ARCH, "yaml_file": f"{name}.yaml"} | CHANGES


def set_table(variant: str) -> Table:
    """Return a fresh table on RT-DETRv2, see `eyas.models.rtdetr.variants.official_table`."""
    own = {"arch": SET_ARCH, "yaml_file": f"deim-rtdetrv2-{variant}.yaml", "position_layers": 3}
    own["eval_layer"] = SET_VARIANTS[variant].eval_layer
    return official_table(variant, 2) | own | CHANGES


def checked_fine(table: Mapping[str, Any]) -> Table:
    """Return a table on D-FINE with its defaults filled in; raises a ValueError as `checked_table` does."""
    return checked_table(table, DFINE, fine_table)


def checked_set(table: Mapping[str, Any]) -> Table:
    """Return a table on RT-DETRv2 with its defaults filled in; raises a ValueError as `checked_table` does."""
    return checked_table(table, SET_VARIANTS, set_table)


def _named(table: Callable[[str], Table], variant: str) -> tuple[str, Callable[[], Table]]:
    return str(table(variant)["yaml_file"]).removesuffix(".yaml"), lambda: table(variant)


FINE_TABLES: Mapping[str, Callable[[], Table]] = MappingProxyType(dict(_named(fine_table, v) for v in DFINE))
SET_TABLES: Mapping[str, Callable[[], Table]] = MappingProxyType(dict(_named(set_table, v) for v in SET_VARIANTS))
"""Name -> function that returns a fresh table."""
