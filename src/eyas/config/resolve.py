"""Merge options from all sources: default < recipe < file < call < command line. The last one that speaks wins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyas.config.errors import OptionValueError, UnknownOptionError, bad_value
from eyas.config.options import TrainOptions, check_command, describe, facts, option_names, pair_schedule, unknown
from eyas.config.yaml_text import parse_scalar, parse_value, read_mapping

__all__ = [
    "check_effective",
    "parse_cli",
    "parse_value",
    "read_option_file",
    "resolve",
    "void_options",
    "with_defaults",
]


def resolve(
    *,
    recipe: Mapping[str, Any] | None = None,
    file: Path | str | None = None,
    call: Mapping[str, Any] | None = None,
    cli: Mapping[str, Any] | None = None,
    command: str = "train",
) -> TrainOptions:
    """Options of a run, each with its source.

    Args:
        recipe: values chosen by the recipe of the model; they do not count as typed.
        file: YAML file of options; the same as `cfg` in `call` or `cli`.
        call: keyword arguments of a Python call.
        cli: `key=value` arguments; texts are read as YAML scalars, other values are taken as they are.
        command: "train", "val", "predict" or "track". Options of `call` and `cli` that it would ignore are refused;
            a file and a recipe may serve several commands, so their options for other commands are left aside.

    Raises:
        UnknownOptionError: a name does not exist, has no effect on `command`, or is not supported; one line per name.
        OptionValueError: a value does not fit, two options contradict each other, or one makes another void.
    """
    call, cli = dict(call or {}), parse_cli(cli or {})
    file_values, where = read_option_file(_option_file(file, call, cli))
    layers = {"recipe": recipe or {}, "file": file_values, "call": call, "command line": cli}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    origin: dict[str, str] = {}
    for source, layer in layers.items():
        at = where if source == "file" else dict.fromkeys(layer, source)
        _check_names(layer, command if source in ("call", "command line") else None, at)
        layer = pair_schedule(layer)
        values.update(layer)
        sources.update(dict.fromkeys(layer, source))
        origin.update({name: at.get(name, source) for name in layer})
    options = TrainOptions.from_layers(values, sources, origin)
    check_effective(options)
    return options


def with_defaults(options: TrainOptions, values: Mapping[str, Any]) -> TrainOptions:
    """Options that say what a recipe says where nobody gave a value, as if they had been resolved with it.

    Raises:
        OptionValueError: a value does not fit, or makes an option void that was given.
    """
    missing = {name: value for name, value in pair_schedule(values).items() if options.source(name) == "default"}
    if not missing:
        return options
    sources = {**options.sources(), **dict.fromkeys(missing, "recipe")}
    filled = TrainOptions.from_dict({**options.to_dict(), **missing}, sources)
    check_effective(filled)
    return filled


def read_option_file(path: Path | str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The options of a YAML file and "file:line" of each; both empty without a file. Raises OptionValueError.

    A file that holds every option, such as a run's own `options.yaml`, was not typed by a person: what it holds at its
    default is left out.
    """
    if path is None:
        return {}, {}
    values, where = read_mapping(Path(path))
    if values.keys() >= set(option_names("train")):
        defaults = TrainOptions().to_dict()
        values = {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
    return values, where


def parse_cli(values: Mapping[str, Any]) -> dict[str, Any]:
    """Command-line texts as values. An option that is a text stays one, so that `name=007` is the folder "007"."""
    return {name: _parse_typed(name, value) if isinstance(value, str) else value for name, value in values.items()}


def _parse_typed(name: str, text: str) -> object:
    if name in option_names() and describe(name).type in ("str", "str | mapping") and text.strip()[:1] != "{":
        return None if parse_scalar(text) is None else text
    try:
        return parse_value(text)
    except ValueError as error:
        raise bad_value(name, text, "a value, [a, b] or {a: 1}", "command line", str(error)) from None


def _option_file(file: Path | str | None, call: dict[str, Any], cli: dict[str, Any]) -> Path | str | None:
    """The one option file; `cfg` is taken out of the layers, because its content is what counts."""
    given = [path for path in (file, call.pop("cfg", None), cli.pop("cfg", None)) if path is not None]
    for path in given:
        if not isinstance(path, str | Path):
            raise bad_value("cfg", path, describe("cfg").expected)
    if len({str(path) for path in given}) > 1:
        raise OptionValueError(f"cfg: only one option file can be used, got {' and '.join(map(str, given))}")
    return given[0] if given else None


def _check_names(layer: Mapping[Any, Any], command: str | None, where: Mapping[str, str]) -> None:
    names = option_names()
    errors = [unknown(name, where.get(name, "")) for name in layer if name not in names]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UnknownOptionError("\n".join(str(error) for error in errors))
    if command is not None:
        check_command(layer, command, where)


# ------------------------------------------------------------------------------- options that make others void


def check_effective(options: TrainOptions) -> None:
    """Raise OptionValueError when a typed option is made void by another one (nothing is accepted and ignored)."""
    lines = list(void_options(options).values())
    if lines:
        raise OptionValueError("\n".join(lines))


def void_options(options: TrainOptions) -> dict[str, str]:
    """Typed options that another one makes void, and why, each in one line."""
    values = dict(options)
    return {
        name: f"{name}={options.get(name)!r} ({options.source(name)}) has no effect: {void.why.format(o=options)}"
        for name in option_names()
        if options.is_changed(name)
        for void in facts(name).void
        if void.applies(name, values)
    }
