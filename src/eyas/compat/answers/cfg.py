"""``ultralytics.cfg``: options of a run, from a file, a mapping or a namespace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyas.config import TrainOptions


class IterableSimpleNamespace(SimpleNamespace):
    """Values by attribute; iterating gives pairs."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""
        return getattr(self, key, default)


def default_options() -> TrainOptions:
    """Return options of which none is typed: as a ``cfg`` they change nothing."""
    from eyas.config import TrainOptions

    return TrainOptions()


def default_dict() -> dict[str, Any]:
    """Return the same as a dictionary."""
    return default_options().to_dict()


def get_cfg(
    cfg: TrainOptions | Mapping[str, Any] | SimpleNamespace | str | Path | None = None,
    overrides: TrainOptions | Mapping[str, Any] | SimpleNamespace | None = None,
) -> TrainOptions:
    """Return checked options: values by attribute, ``.get(name, default)``, iterating gives pairs.

    Args:
        cfg: an option file, a mapping, a namespace or options; None for the defaults.
        overrides: what goes over that.

    Raises:
        OptionError: an option that does not exist, with the nearest one, or a value that does not fit.
    """
    from eyas.config import TrainOptions, resolve

    over = overrides.to_dict() if isinstance(overrides, TrainOptions) else as_mapping(overrides)
    if not isinstance(cfg, TrainOptions):
        if isinstance(cfg, str | Path):
            return resolve(file=cfg, call=over)
        return resolve(call=as_mapping(cfg) | over)
    options = TrainOptions.from_dict(cfg.to_dict(), cfg.sources())
    for name, value in over.items():
        setattr(options, name, value)
    return options


def as_mapping(values: Mapping[str, Any] | SimpleNamespace | None) -> dict[str, Any]:
    """Return the values of a namespace or a mapping."""
    return dict(vars(values) if isinstance(values, SimpleNamespace) else values or {})


def get_save_dir(args: TrainOptions, name: str | None = None) -> Path:
    """Return the folder that a run of these options, or one called ``name``, would have next; it is not made."""
    from eyas.config.folders import run_folder

    return run_folder(args, default_name=name or "train")
