"""``yaml_load``, ``yaml_save`` and ``YAML``: plain values in files, with file and line in what goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from eyas.files import write_atomic
from eyas.log import LOGGER
from eyas.plain_yaml import read_yaml


def yaml_load(file: str | Path = "data.yaml", append_filename: bool = False) -> dict[str, Any]:
    """Return what a YAML file holds; nothing in it is run. ``append_filename`` adds its path as ``yaml_file``.

    Raises:
        FileNotFoundError: there is no such file.
        YamlError: it is not YAML, or without end; a ValueError that names file and line.
    """
    path = Path(file)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ValueError(f"{path} is not named like a YAML file (.yaml, .yml).")
    content: dict[str, Any] = read_yaml(path) or {}
    return content | {"yaml_file": str(path)} if append_filename else content


def yaml_save(file: str | Path = "data.yaml", data: Mapping[str, Any] | None = None, header: str = "") -> None:
    """Write values as YAML in their order, under ``header``; folders are made. What YAML lacks is written as text."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(_plain(dict(data or {})), sort_keys=False, allow_unicode=True)
    write_atomic(path, f"{header}{text}".encode())


def yaml_print(yaml_file: str | Path | Mapping[str, Any]) -> None:
    """Log the content of a file, or values, as YAML."""
    content = yaml_load(yaml_file) if isinstance(yaml_file, str | Path) else dict(yaml_file)
    LOGGER.info("%s", yaml.safe_dump(_plain(content), sort_keys=False, allow_unicode=True).rstrip())


class YAML:
    """The three under one name: ``YAML.load(file)``, ``YAML.save(file, data)``, ``YAML.print(file_or_data)``."""

    load = staticmethod(yaml_load)
    save = staticmethod(yaml_save)
    print = staticmethod(yaml_print)


def _plain(value: Any) -> Any:
    """Return a value as YAML knows it: paths and objects as text, tuples as lists."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
