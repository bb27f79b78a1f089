"""``ultralytics.cfg``: options of a run, from a file, a mapping or a namespace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from eyas.compat.answers.yaml_files import yaml_load
from eyas.config import TrainOptions, resolve
from eyas.config.errors import OptionValueError, show
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


class DefaultOptions(TrainOptions):
    """Options of which none is typed: as a ``cfg`` they change nothing. They are read; a copy can be changed."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        elif getattr(self, name) != value:
            refuse_default(f"DEFAULT_CFG.{name} = {show(value)}", {name: value})

    def __copy__(self) -> TrainOptions:  # type: ignore[override]  # a copy can be changed
        return TrainOptions()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> TrainOptions:  # type: ignore[override]
        return TrainOptions()


class DefaultDict(dict[str, Any]):
    """The same as a dictionary, which is read; its copies can be changed."""

    def __reduce__(self) -> Any:
        return dict, (dict(self),)  # for copies, and for other processes

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def update(self, *values: Mapping[str, Any], **more: Any) -> None:  # type: ignore[override]  # pairs are not taken
        """Take values that are so already.

        Raises:
            OptionValueError: others; says where they are passed.
        """
        given = {key: value for mapping in (*values, more) for key, value in mapping.items()}
        changed = {key: value for key, value in given.items() if key not in self or self[key] != value}
        for key, value in changed.items():
            refuse_default(f"DEFAULT_CFG_DICT[{key!r}] = {show(value)}", {key: value})

    def __ior__(self, values: Any) -> DefaultDict:  # type: ignore[override, misc]  # nothing is taken in
        self.update(values)
        return self


def refuse_default(line: str, value: Mapping[str, Any]) -> NoReturn:
    """Say where an option is passed.

    Raises:
        OptionValueError: always.
    """
    ((name, given),) = value.items()
    raise OptionValueError(
        f"{line} has no effect: defaults are the same for every run. Pass {name}={show(given)} to train(), val() or "
        "predict(), or change a copy and give it as cfg of a trainer."
    )


def default_options() -> TrainOptions:
    """Return options of which none is typed."""
    return DefaultOptions()


def default_dict() -> dict[str, Any]:
    """Return the same as a dictionary."""
    return DefaultDict(TrainOptions().to_dict())


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
