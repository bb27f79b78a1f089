"""Option values from text: YAML 1.2 scalars without YAML 1.1's surprises, and where in a file each value stands.

PyYAML follows YAML 1.1, in which `1e-3` is a text, `no` is False and `1:30` is 90. People who type options mean none
of that, so only PyYAML's parser is used here, never its resolver or constructors (which also means that no tag in a
file can build an object).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from eyas.config.errors import OptionValueError

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MAX_DIGITS = 300  # Python refuses to read longer integers by default, and no option needs them
_MAX_DEPTH = 20
_CONSTANTS = {"": None, "~": None, "null": None, "none": None, "true": True, "false": False}


def parse_scalar(text: str) -> object:
    """None, True, False, an int, a float, or the text itself."""
    text = text.strip()
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if len(text) <= _MAX_DIGITS:
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def parse_value(text: str) -> object:
    """A value typed on the command line: a scalar, a quoted text, `[a, b]` or `{a: 1}`. Raises ValueError."""
    if text.strip()[:1] not in ("[", "{", "'", '"'):
        return parse_scalar(text)
    try:
        _check_nesting(text)
        return _convert(yaml.compose(text, Loader=yaml.SafeLoader), 0)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"cannot read {text[:60]!r}: {_problem(error)}") from None


def read_mapping(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The options in a YAML file, and "file:line" of each. Raises OptionValueError naming file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OptionValueError(f"cfg={str(path)!r}: there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a name that no file can have
        raise OptionValueError(f"cfg={str(path)!r}: cannot be read: {error}") from None
    try:
        _check_nesting(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return _read_root(node, path)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, OptionValueError):
            raise
        mark = getattr(error, "problem_mark", None)
        at = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise OptionValueError(f"{at}: not readable as YAML: {_problem(error)}") from None


def _check_nesting(text: str) -> None:
    """Refuse absurd nesting before PyYAML spends quadratic time on it. Brackets inside texts count too: harmless."""
    depth = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if depth > 10 * _MAX_DEPTH:
            raise ValueError("nested too deeply")


def _read_root(node: Any, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise OptionValueError(f"{path}: an option file holds lines of the form `epochs: 50`")
    values: dict[str, Any] = {}
    where: dict[str, str] = {}
    for key_node, value_node in node.value:
        at = f"{path}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise OptionValueError(f"{at}: the name of an option must be a plain word")
        if key_node.value in values:
            raise OptionValueError(f"{at}: {key_node.value!r} was already given in {where[key_node.value]}")
        try:
            values[key_node.value] = _convert(value_node, 0)
        except ValueError as error:
            raise OptionValueError(f"{at}: {key_node.value}: {error}") from None
        where[key_node.value] = at
    return values, where


def _convert(node: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(node, yaml.SequenceNode):
        return [_convert(item, depth + 1) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return _convert_mapping(node, depth)
    if node is None:
        return None
    return parse_scalar(node.value) if node.style is None else node.value


def _convert_mapping(node: Any, depth: int) -> dict[object, Any]:
    """A mapping in which every key has a value, and has it once. Raises ValueError."""
    found: dict[object, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise ValueError("a key must be a plain word or number")
        if node.flow_style and _is_plain(key_node) and _is_plain(value_node) and value_node.value == "":
            key, value = _split_pair(key_node.value)
        else:
            key, value = _key(key_node), _convert(value_node, depth + 1)
        if str(key) in map(str, found):
            raise ValueError(f"{str(key)!r} is given twice")
        found[key] = value
    return found


def _is_plain(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None


def _split_pair(text: str) -> tuple[object, object]:
    """`a:2`, which to YAML is a key without a value, as the pair that was meant. Raises ValueError."""
    if text.count(":") != 1 or text.endswith(":"):
        raise ValueError(f"{text!r} has no value: write {{name: value}}, with a blank behind the colon")
    key, _, value = text.partition(":")
    return _plain_key(key.strip()), parse_value(value)


def _key(node: Any) -> object:
    return _plain_key(node.value) if node.style is None else node.value


def _plain_key(text: str) -> object:
    """A whole number, or else the text: a class may be called `none`, `true`, `007` or `1.5`."""
    value = parse_scalar(text)
    return value if type(value) is int and str(value) == text else text


def _problem(error: Exception) -> str:
    return " ".join(str(getattr(error, "problem", None) or error).split())
