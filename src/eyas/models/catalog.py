"""All detectors that are known: from a name, a file or a table to the class that builds it, and to the model.

Every class describes itself (`Detector`: its names, the tables it builds, the weights published for it); here they are
asked one after the other. Classes of families from elsewhere join by `register_detector`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eyas.models.deim.model import DEIMFineNet, DEIMSetNet
from eyas.models.deim.v2 import DEIMv2Net, ECDetNet
from eyas.models.detection import DetectionModel
from eyas.models.detector import Detector, does_not_fit
from eyas.models.dfine.model import DFineNet
from eyas.models.dino.net import DINONet
from eyas.models.published import Published, model_of
from eyas.models.rtdetr.model import RTDETRDetectionModel
from eyas.models.rtdetr.official import RTDETRNet
from eyas.models.rtdetr.published import read_published
from eyas.models.table import ModelTableError, Table, Tables, UnknownModelError, find_name, read_table, shown
from eyas.names import nearest

STOCK: tuple[type[Detector], ...] = (
    DetectionModel, RTDETRDetectionModel, RTDETRNet, DFineNet, DEIMFineNet, DEIMSetNet, DEIMv2Net, ECDetNet, DINONet,
)  # fmt: skip
_registered: dict[str, type[Detector]] = {}  # by module and name: a notebook's cell may define its class again
_tables = {name: table for cls in STOCK for name, table in cls.tables.items()}
MODELS: Tables = MappingProxyType(_tables)
"""Name -> function that returns a fresh table, of all classes that are known."""


def register_detector(cls: type[Detector]) -> None:
    """Make a class known: its names, the tables that it builds, and its published weights.

    Raises:
        ValueError: another class has one of its names, or builds one of its tables.
    """
    others = [other for other in _detectors() if _key(other) != _key(cls)]
    for name, table in cls.tables.items():
        for other in others:
            if name in other.tables or other.builds(table()):
                raise ValueError(f"{cls.__name__} has a model {name!r}, which {other.__name__} has or builds already")
    _registered[_key(cls)] = cls
    _tables.update(cls.tables)


def registered_detectors() -> tuple[type[Detector], ...]:
    """Return the classes that were registered, in that order."""
    return tuple(_registered.values())


def _key(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _detectors() -> tuple[type[Detector], ...]:
    return (*STOCK, *registered_detectors())


# -- names and tables --------------------------------------------------------------------------------------------------
def resolve_model(name: str) -> str:
    """Return the catalogue's name for ``name``, which may end in .yaml or .pt and be in any case.

    Raises:
        UnknownModelError: no model has this name; the message offers the nearest, or says how weights are loaded.
    """
    _refuse_weights(str(name).strip())
    return find_name(str(name), MODELS)


def model_table(cfg: str | Path | Mapping[str, Any]) -> Table:
    """Return a fresh table for a model's name, a YAML file or a mapping, with defaults filled in (`read_table`).

    Raises:
        UnknownModelError: neither a known name nor a file.
        ModelTableError: no model can be built from it.
    """
    if not isinstance(cfg, Mapping):
        _refuse_weights(str(cfg).strip())
    table, where = read_table(cfg, MODELS)
    cls = detector_class(table)
    if "arch" in table and not cls.builds(table):
        known = " or ".join(repr(other.arch) for other in _detectors() if other.arch)
        raise ModelTableError(f"{where}: arch is {shown(table['arch'])}, and must be {known}; tables of rows have none")
    return cls.checked(table, where)


def detector_class(table: Mapping[str, Any]) -> type[Detector]:
    """Return the class that builds a table: by its ``arch``, else by the layer of its last row.

    A table that no class can build gets `DetectionModel`, whose message names the row.
    """
    return next((cls for cls in _detectors() if cls.builds(table)), DetectionModel)


def build_detector(cfg: str | Path | Mapping[str, Any], **settings: Any) -> Detector:
    """Return the model for a name, a YAML file or a table; ``settings`` are those of `Detector`.

    Raises:
        UnknownModelError, ModelTableError: the table cannot be found or built.
    """
    table = model_table(cfg)
    return detector_class(table)(table, **settings)


# -- published weights -------------------------------------------------------------------------------------------------
def published_weights() -> dict[str, Published]:
    """Return all published weights by name."""
    return {name: entry for cls in _detectors() for name, entry in cls.published.items()}


def reader_of(weights: str | Path) -> type[Detector]:
    """Return the class that reads published weights of this name or file, or one by its tensors; else the usual one.

    Raises:
        CheckpointError: it is a file, and none of tensors.
    """
    readers = [cls for cls in _detectors() if cls.published]
    known = next((cls for cls in readers if model_of(weights, cls.published)), None)
    if known is None and Path(weights).is_file():
        state = read_published(weights)
        known = next((cls for cls in readers if cls.recognised(state)), None)
    return known or readers[0]


def load_weights(model: Detector, weights: Any, *, remap: bool = True, accepted: Collection[str] = ()) -> int:
    """Copy what fits into a model, see `Detector.load`.

    Raises:
        ValueError: as `Detector.load` does; for files that a model of another class reads, names that.
    """
    if isinstance(weights, str | Path) and not model.published:
        raise does_not_fit(weights, model.yaml, reader_of(weights))
    return model.load(weights, remap=remap, accepted=accepted)


def ways_without(path: str | Path) -> str:
    """Say how to go on without a file of weights that others publish."""
    stem = Path(path).stem.lower()
    other_task = re.search(r"-(seg|pose|obb|cls|world\w*|sem)$", stem)
    plain = stem.removesuffix(other_task[0]) if other_task else stem
    named = plain if plain in MODELS else next(iter(nearest(plain, MODELS, cutoff=0.5)), "yolo26n")
    reader = reader_of("")
    apache = next(name for name, entry in reader.published.items() if entry.ap)
    return (
        f"there is no file {path}, and Eyas neither ships nor fetches weights of that name."
        f"{f' It detects boxes; {other_task[0]} is another task.' if other_task else ''} Three ways on:\n"
        f"  a file of your own:   model=path/to/{Path(path).name}\n"
        f"  an Apache-2.0 model:  model={reader.model_for(apache)} pretrained={apache}, or "
        f"{reader.call_to_load(apache)}; trained on COCO, {reader.published[apache].ap} AP\n"
        f"  random weights:       model={named}.yaml, or YOLO('{named}.yaml')"
    )


def _refuse_weights(name: str) -> None:
    """Refuse what is the name or a file of weights alone, and say which model to load it into."""
    if name.lower() in published_weights() and name.lower() not in MODELS:
        what = "names published weights, which are no model of their own"
    elif name.lower().endswith(".pth"):
        what = "holds weights only, not the layers that they belong to"
    else:
        return
    cls = reader_of(name)
    raise UnknownModelError(
        f"{name} {what}: write {cls.call_to_load(name)}, or model={cls.model_for(name)} pretrained={name}"
    )
