"""Tables that models are built from: plain values, found by the name of a model, in a YAML file, or given as a mapping.

A table has rows of numbered layers (``backbone`` and ``head``), or names the layout that knows its layers (``arch``).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from eyas.names import nearest
from eyas.plain_yaml import YamlError, read_yaml

Table: TypeAlias = dict[str, Any]
Tables: TypeAlias = Mapping[str, Callable[[], Table]]
"""Name of a model -> function that returns a fresh table."""

SHOWN = 200  # letters of a value in a message


class UnknownModelError(ValueError):
    """No model has this name."""


class ModelTableError(ValueError):
    """A table cannot be built; the message names the row or the key and what to do."""


def find_name(name: str, tables: Tables, kind: str = "model") -> str:
    """Return the name among those of ``tables`` that is meant: in any case, and with .yaml or .pt behind it or not.

    Raises:
        UnknownModelError: there is none; says that no ``kind`` is called so, and offers the nearest.
    """
    stem = re.sub(r"\.(ya?ml|pt)$", "", name.strip().lower())
    if stem in tables:
        return stem
    if f"{stem}n" in tables:  # the family alone means its smallest member
        return f"{stem}n"
    near = nearest(stem, tables, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UnknownModelError(
        f"no {kind} is called {shown(name)}: {hint}known models are {', '.join(tables)}, or a YAML file"
    )


def read_table(cfg: str | Path | Mapping[str, Any], tables: Tables, kind: str = "model") -> tuple[Table, str]:
    """Return a fresh table, not checked yet, and where it is from; the input is not changed.

    A file named like ``mine-s.yaml`` or ``mine11s.yaml`` takes its scale from the letter when the table has ``scales``
    and there is no such file but one without the letter (spec core C.7).

    Args:
        cfg: name of a model, YAML file, or mapping.
        tables: the names that are known here.
        kind: what they are names of, for messages.

    Raises:
        UnknownModelError: neither a known name nor a file.
        ModelTableError: the file holds no mapping.
    """
    if isinstance(cfg, Mapping):
        table = copy.deepcopy(dict(cfg))
        if not isinstance(table.setdefault("yaml_file", ""), str):
            raise ModelTableError(f"the model table: yaml_file is {shown(table['yaml_file'])}, and must be a text")
        return table, "the model table"
    path = Path(cfg)
    if path.suffix.lower() in {".yaml", ".yml"}:
        found, scale = _find_file(path)
        if found is not None:
            table = _read_file(found)
            table["yaml_file"] = str(cfg)
            scales = table.get("scales")
            if isinstance(scales, dict) and scale in scales:
                table["scale"] = scale
            return table, str(found)
        if path.parent != Path():
            raise UnknownModelError(
                f"model file {path} does not exist: check the path, or name one of {', '.join(tables)}"
            )
    name = find_name(str(cfg), tables, kind)
    return tables[name](), name


def shown(value: object) -> str:
    """Return a value of a table for a message: as one would write it, and cut if it is long."""
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."


def called(table: Mapping[str, Any]) -> str:
    """Return what a table is called in messages: with the file that it is from, if it is from one."""
    file = str(table.get("yaml_file") or "")[-SHOWN:]
    return f"the model table {file}".rstrip()


def last_layer(table: Mapping[str, Any]) -> str:
    """Return the name of the last row's layer, which says what a table of rows detects with; "" if there is none."""
    rows = table.get("head")
    row = rows[-1] if isinstance(rows, list) and rows else None
    return str(row[2]) if isinstance(row, (list, tuple)) and len(row) == 4 else ""


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


def _read_file(path: Path) -> Table:
    try:
        table = read_yaml(path)
    except YamlError as error:
        raise ModelTableError(str(error)) from None
    if not isinstance(table, dict):
        raise ModelTableError(f"{path} holds no mapping: a model file needs backbone and head, lists of rows")
    return table
