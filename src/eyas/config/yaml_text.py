"""Option values from text: YAML 1.2 scalars without YAML 1.1's surprises, and where in a file each value stands.

PyYAML follows YAML 1.1, in which `1e-3` is a text, `no` is False and `1:30` is 90. People who type options mean none
of that, so only the nodes are used here (`eyas.plain_yaml.compose`), never PyYAML's idea of what they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from eyas.config.errors import OptionValueError
from eyas.plain_yaml import YamlError, compose, line_and_problem, read_text

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MAX_DIGITS = 300  # Python refuses to read longer integers by default, and no option needs them
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
        return _convert(compose(text))
    except yaml.YAMLError as error:
        raise ValueError(f"cannot read {text[:60]!r}: {line_and_problem(error)[1]}") from None


def read_mapping(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The options in a YAML file, and "file:line" of each. Raises OptionValueError naming file and line."""
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise OptionValueError(f"cfg={str(path)!r}: there is no such file") from None
    except YamlError as error:
        raise OptionValueError(f"cfg: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise OptionValueError(f"cfg={str(path)!r}: cannot be read: {error}") from None
    try:
        return _read_root(compose(text), path)
    except yaml.YAMLError as error:
        line, problem = line_and_problem(error)
        raise OptionValueError(f"{path}{f':{line}' if line else ''}: {problem}") from None


def _read_root(node: Any, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise OptionValueError(f"{path}: an option file holds lines of the form `epochs: 50`")
    values: dict[str, Any] = {}
    where: dict[str, str] = {}
    for key_node, value_node in node.value:
        at = f"{path}:{key_node.start_mark.line + 1}"
        try:
            values[key_node.value] = _convert(value_node)
        except ValueError as error:
            raise OptionValueError(f"{at}: {key_node.value}: {error}") from None
        where[key_node.value] = at
    return values, where


def _convert(node: Any) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_convert(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return _convert_mapping(node)
    if node is None:
        return None
    return parse_scalar(node.value) if node.style is None else node.value


def _convert_mapping(node: Any) -> dict[object, Any]:
    """A mapping in which every key has a value, and has it once. Raises ValueError."""
    found: dict[object, Any] = {}
    given = set[str]()
    for key_node, value_node in node.value:
        if node.flow_style and _is_plain(key_node) and _is_plain(value_node) and value_node.value == "":
            key, value = _split_pair(key_node.value)
        else:
            key, value = _key(key_node), _convert(value_node)
        if str(key) in given:
            raise ValueError(f"{str(key)!r} is given twice")
        given.add(str(key))
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
