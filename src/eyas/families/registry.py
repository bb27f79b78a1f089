"""The families that are known: the stock ones, and those that were registered in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eyas.families.deim import DEIM
from eyas.families.dfine import DFINE
from eyas.families.dino import DINO
from eyas.families.family import Family
from eyas.families.rtdetr import RTDETR
from eyas.families.yolo26 import YOLO26
from eyas.models import Detector, detector_class
from eyas.models.catalog import register_detector

STOCK: Mapping[str, Family] = {family.name: family for family in (YOLO26, RTDETR, DFINE, DEIM, DINO)}
_registered: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Make a family known in this process, to every name, checkpoint and command; returns it.

    A module that registers a family when it is imported makes its checkpoints open wherever the module is imported.
    Several processes of one training learn of it by themselves. A family of the same name, but for a stock one, is
    replaced: a notebook's cell may run again.

    Raises:
        ValueError: it has the name of a stock family, or a model that another family has.
    """
    if family.name in STOCK:
        raise ValueError(f"a stock family is called {family.name!r}; choose another name")
    for cls in family.detectors:
        register_detector(cls)
    _registered[family.name] = family
    return family


def families() -> dict[str, Family]:
    """Return all families by name."""
    return {**STOCK, **_registered}


def family_of(model: Detector | type[Detector] | Mapping[str, Any]) -> Family:
    """Return the family of a model, of a class of models, or of a table.

    Raises:
        ValueError: nobody has registered it.
    """
    cls = detector_class(model) if isinstance(model, Mapping) else model
    name = cls.family or YOLO26.name  # a class of the user's that names none is trained like most
    known = families()
    if name not in known:
        raise ValueError(
            f"no family is called {name!r}; there are {', '.join(known)}. Register it: eyas.families.register(...)."
        )
    return known[name]
