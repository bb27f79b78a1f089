"""The models that have a name, and how a name, a file or a mapping becomes a table of layers."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eyas.models.graph import ModelTableError
from eyas.models.rtdetr.tables import TABLES as RTDETR
from eyas.models.rtdetr.variants import ARCH, OFFICIAL, checked_table
from eyas.models.yolo26 import SCALES, yolo26_table


class UnknownModelError(ValueError):
    """No model has this name."""


def _yolo26(scale: str) -> Callable[[], dict[str, Any]]:
    return lambda: yolo26_table(scale)


MODELS: Mapping[str, Callable[[], dict[str, Any]]] = MappingProxyType(
    {f"yolo26{s}": _yolo26(s) for s in SCALES} | dict(RTDETR) | dict(OFFICIAL)
)
"""Name -> function that returns a fresh table."""


def resolve_model(name: str) -> str:
    """Return the catalogue's name for ``name``, which may end in .yaml or .pt and be in any case.

    Raises:
        UnknownModelError: no model has this name; the message offers the nearest, or says how weights are loaded.
    """
    stem = re.sub(r"\.(ya?ml|pt)$", "", str(name).strip().lower())
    if stem in MODELS:
        return stem
    if f"{stem}n" in MODELS:  # the family alone means its smallest member
        return f"{stem}n"
    _refuse_weights(str(name).strip())
    near = difflib.get_close_matches(stem, MODELS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UnknownModelError(f"no model is called {name!r}: {hint}known models are {', '.join(MODELS)}, or a YAML file")


def _refuse_weights(name: str) -> None:
    """Refuse what is the name or a file of weights alone, and say which model to load it into."""
    from eyas.models.rtdetr.published import PUBLISHED, model_of  # brings the machinery of downloads, which few need

    if name.lower() in PUBLISHED:
        what = "names published weights, which are no model of their own"
    elif name.lower().endswith(".pth"):
        what = "holds weights only, not the layers that they belong to"
    else:
        return
    model = model_of(name)
    raise UnknownModelError(
        f"{name} {what}: write RTDETR({model!r}).load({name!r}), or model={model} pretrained={name}"
    )


def model_table(cfg: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Return a fresh table of layers for a model's name, a YAML file or a mapping; the input is not changed.

    A file named like ``mine-s.yaml`` or ``mine11s.yaml`` takes its scale from the letter when the table has ``scales``
    and there is no such file but one without the letter (spec core C.7).

    Raises:
        UnknownModelError: neither a known name nor a file.
        ModelTableError: the file is no table of layers.
    """
    if isinstance(cfg, Mapping):
        table = copy.deepcopy(dict(cfg))
        table.setdefault("yaml_file", "")
        return _checked(table, "the model table")
    path = Path(cfg)
    if path.suffix.lower() in {".yaml", ".yml"}:
        found, scale = _find_file(path)
        if found is not None:
            table = _read_table(found)
            table["yaml_file"] = str(cfg)
            if scale in (table.get("scales") or {}):
                table["scale"] = scale
            return _checked(table, str(found))
        if path.parent != Path():
            raise UnknownModelError(
                f"model file {path} does not exist: check the path, or name one of {', '.join(MODELS)}"
            )
    return MODELS[resolve_model(str(cfg))]()


def _find_file(path: Path) -> tuple[Path | None, str]:
    """Return the file for ``path`` and a scale letter; the letter may be in the given name only."""
    match = re.search(r"(?<=\d)([nsmlx])$", path.stem)
    if path.is_file():
        return path, match.group(1) if match else ""
    if match:
        unscaled = path.with_name(path.stem[:-1] + path.suffix)
        if unscaled.is_file():
            return unscaled, match.group(1)
    return None, ""


def _read_table(path: Path) -> dict[str, Any]:
    import yaml

    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ModelTableError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(table, dict):
        raise ModelTableError(f"{path} holds no mapping: a model file needs backbone and head, lists of rows")
    return table


def _checked(table: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the table when it has what every table needs, with defaults filled in."""
    if "arch" in table:
        return _checked_official(table, where)
    for part in ("backbone", "head"):
        if not isinstance(table.get(part), list):
            raise ModelTableError(f"{where}: {part} is missing or no list: write rows [from, repeats, layer, args]")
    scales = table.get("scales")
    if scales:
        chosen = table.setdefault("scale", next(iter(scales)))
        if chosen not in scales:
            raise ModelTableError(f"{where}: scale {chosen!r} is not among its scales {', '.join(map(str, scales))}")
    table.setdefault("nc", 80)
    table.setdefault("reg_max", 1)
    table.setdefault("end2end", False)
    return table


def _checked_official(table: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the table of a model that has a layout of its own instead of rows."""
    if table["arch"] != ARCH:
        raise ModelTableError(f"{where}: arch is {table['arch']!r}, and must be {ARCH!r}; tables of rows have none")
    try:
        return checked_table(table)
    except ValueError as error:
        raise ModelTableError(f"{where}: {error}") from error
