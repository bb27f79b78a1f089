"""``ultralytics.cfg``: options of a run, from a file, a mapping or a namespace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from eyas.compat.answers.yaml_files import yaml_load
from eyas.config import TrainOptions, resolve
from eyas.config.folders import run_folder
from eyas.config.resolve import check_effective

Given = TrainOptions | Mapping[str, Any] | SimpleNamespace | str | Path | None


class IterableSimpleNamespace(SimpleNamespace):
    """Values by attribute; iterating gives pairs."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""
        return getattr(self, key, default)


def default_options() -> TrainOptions:
    """Return options of which none is typed: as a ``cfg`` they change nothing."""
    return TrainOptions()


def default_dict() -> dict[str, Any]:
    """Return the same as a dictionary."""
    return TrainOptions().to_dict()


def get_cfg(cfg: Given = None, overrides: Given = None) -> TrainOptions:
    """Return checked options: values by attribute, ``.get(name, default)``, iterating gives pairs.

    Args:
        cfg: an option file, a mapping, a namespace or options; None for the defaults. What stands at its default in a
            mapping or a file was typed by nobody.
        overrides: what goes over that.

    Raises:
        OptionError: an option that does not exist, with the nearest one, or a value that does not fit.
    """
    options = resolve(file=cfg) if isinstance(cfg, str | Path) else TrainOptions.from_dict(cfg2dict(cfg))
    for name, value in cfg2dict(overrides).items():
        setattr(options, name, value)
    check_effective(options)
    return options


def cfg2dict(cfg: Given) -> dict[str, Any]:
    """Return the values of a file, a mapping, a namespace, or those that were typed of options."""
    if isinstance(cfg, TrainOptions):
        return {name: value for name, value in cfg.to_dict().items() if cfg.is_typed(name)}
    if isinstance(cfg, str | Path):
        return yaml_load(cfg)
    return dict(vars(cfg) if isinstance(cfg, SimpleNamespace) else cfg or {})


def get_save_dir(args: TrainOptions, name: str | None = None) -> Path:
    """Return the folder that a run of these options, or one called ``name``, would have next; it is not made."""
    return run_folder(args, default_name=name or "train")
