"""`DEIMFineNet` and `DEIMSetNet`: the networks of D-FINE and RT-DETRv2 as DEIM trains them (spec detr 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from eyas.models.deim.variants import (
    FINE_ARCH,
    FINE_TABLES,
    SET_ARCH,
    SET_TABLES,
    SET_VARIANTS,
    checked_fine,
    checked_set,
)
from eyas.models.dfine.model import DFineNet
from eyas.models.dfine.published import PUBLISHED as DFINE
from eyas.models.published import Published
from eyas.models.rtdetr.official import RTDETRNet
from eyas.models.rtdetr.published import PUBLISHED as RTDETR
from eyas.models.rtdetr.variants import Variant
from eyas.models.table import Table, Tables


def backbones(entries: Mapping[str, Published]) -> Mapping[str, Published]:
    """Return the entries that are backbones; DEIM's own files have no address that lasts, and are given by path."""
    return MappingProxyType({name: entry for name, entry in entries.items() if entry.trained_on == "ImageNet"})


class DEIMFineNet(DFineNet):
    """D-FINE with DEIM's activation and class loss; state-dict keys, and so files, are those of `DFineNet`."""

    family: ClassVar[str] = "deim"
    spoken: ClassVar[str] = "DEIM"
    trained_by: ClassVar[str] = "DEIMTrainer"
    arch: ClassVar[str] = FINE_ARCH
    tables: ClassVar[Tables] = FINE_TABLES
    published: ClassVar[Mapping[str, Published]] = backbones(DFINE)
    usual: ClassVar[str] = "deim-dfine-s"
    check: ClassVar[Callable[[Mapping[str, Any]], Table]] = staticmethod(checked_fine)


class DEIMSetNet(RTDETRNet):
    """RT-DETRv2 with DEIM's activation, position code and class loss; files are those of DEIM on RT-DETRv2."""

    family: ClassVar[str] = "deim"
    spoken: ClassVar[str] = "DEIM"
    trained_by: ClassVar[str] = "DEIMTrainer"
    opened_by: ClassVar[str] = "YOLO"
    arch: ClassVar[str] = SET_ARCH
    tables: ClassVar[Tables] = SET_TABLES
    published: ClassVar[Mapping[str, Published]] = backbones(RTDETR)
    usual: ClassVar[str] = "deim-rtdetrv2-r50"
    variants: ClassVar[Mapping[str, Variant]] = SET_VARIANTS
    check: ClassVar[Callable[[Mapping[str, Any]], Table]] = staticmethod(checked_set)
