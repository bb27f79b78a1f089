"""YAML as it comes from others: plain values, within bounds that no honest file reaches.

A few letters of YAML can stand for terabytes (aliases of aliases), for hours (a thousand brackets, a number of a
million digits) or for a call (tags). What is read is counted on the way, so that a file costs what its size says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from eyas.files import opened

BYTES: Final = 2 * 2**20  # of a file; 20,000 names of classes take 0.5 MiB
VALUES: Final = 100_000  # keys too, and those of an alias again; PyYAML takes some seconds for them
DEPTH: Final = 50  # of values inside values
DIGITS: Final = 100  # of a number
KEY_DIGITS: Final = 15  # of a key that is one: larger numbers can be chosen to collide in a dictionary
SHOWN: Final = 80  # letters of a value in a message

NUMBERS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
TEXTS: Final = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")  # a date is a text here, and so is "="


class YamlError(ValueError):
    """A file is no YAML that is read here; names the file, and the line where one is to blame."""


class Refusal(yaml.error.MarkedYAMLError):
    """What stands at a place is YAML, and is not read here."""

    def __init__(self, problem: str, at: yaml.Event | Node) -> None:
        mark: Any = at.start_mark  # the stubs know two classes of marks
        super().__init__(problem=problem, problem_mark=mark)


class BoundedLoader(yaml.SafeLoader):
    """Makes nodes of YAML text, and plain values of nodes; raises ``yaml.YAMLError`` at what goes beyond the bounds."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in TEXTS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.values = 0
        self.sizes: dict[str, int] = {}  # anchor -> values in its node, once that is whole

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Make the node that begins here, if its tag and its size are those of plain values."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self.count(self.size_of(event), event)
        elif event.tag not in (None, "!"):
            raise Refusal(f"the tag {event.tag[:SHOWN]!r} asks for more than plain values; leave it out", event)
        else:
            self.count(1, event)
        before, self.depth = self.values, self.depth + 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if event.anchor is not None:
            self.sizes.setdefault(event.anchor, self.values - before + 1)
        return node

    def size_of(self, alias: yaml.AliasEvent) -> int:
        """Return how many values an alias stands for."""
        anchor = str(alias.anchor)
        if anchor in self.anchors and anchor not in self.sizes:
            raise Refusal(f"{anchor[:SHOWN]!r} holds itself", alias)
        return self.sizes.get(anchor, 1)  # the error of an alias without an anchor is PyYAML's

    def count(self, values: int, at: yaml.Event) -> None:
        """Count values that begin here."""
        self.values += values
        if self.values > VALUES or self.depth > DEPTH:
            raise Refusal(
                f"more than {VALUES:,} values, those of aliases counted again, or more than {DEPTH} inside each other",
                at,
            )

    def compose_scalar_node(self, anchor: dict[Any, Node]) -> ScalarNode:
        """Make a node of a text or a number."""
        node = super().compose_scalar_node(anchor)
        if node.tag in NUMBERS and len(node.value) > DIGITS:
            raise Refusal(f"a number of {len(node.value):,} digits", node)
        if not node.value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in node.value):
            raise Refusal(f"{node.value[:SHOWN]!a} has half of a letter, which cannot be written", node)
        return node

    def compose_mapping_node(self, anchor: dict[Any, Node]) -> MappingNode:
        """Make a node of a mapping in which no key stands twice: YAML itself keeps the last, unsaid."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise Refusal("a key must be a plain word or number", key)
            if key.tag in NUMBERS and len(key.value) > KEY_DIGITS:
                raise Refusal(f"a key of {len(key.value)} digits", key)
            if key.value in lines:
                raise Refusal(f"key {key.value[:SHOWN]!r} was given in line {lines[key.value]} already", key)
            lines[key.value] = key.start_mark.line + 1
        return node


def compose(text: str) -> Node | None:
    """Return the node of a text's one document, None if there is none.

    Raises:
        yaml.YAMLError: it is no YAML, or goes beyond the bounds; `line_and_problem` tells of it.
    """
    return BoundedLoader(text).get_single_node()


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds: texts, numbers, truths and None, in lists and dictionaries.

    Raises:
        YamlError: it is too large, no UTF-8, no YAML, or has tags, keys given twice or values without end.
    """
    text = read_text(path)
    try:
        return BoundedLoader(text).get_single_data()
    except yaml.YAMLError as error:
        line, problem = line_and_problem(error)
        raise YamlError(f"{path}{f', line {line}' if line else ''}: {problem}.") from None


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        YamlError: it is too large, or no UTF-8.
    """
    with opened(path) as file:
        data = file.read(BYTES + 1)
    if len(data) > BYTES:
        raise YamlError(f"{path} has more than {BYTES >> 20} MiB, which no YAML here needs.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError(f"{path} is not UTF-8 text (byte {error.start}).") from None


def line_and_problem(error: yaml.YAMLError) -> tuple[int | None, str]:
    """Return the line, from 1, of what is wrong with a YAML text if it has one, and what it is, in one line."""
    mark = getattr(error, "problem_mark", None)
    problem = " ".join((getattr(error, "problem", None) or str(error)).split())[:300]
    kind = "" if isinstance(error, Refusal) else "no valid YAML: "
    return mark.line + 1 if mark else None, f"{kind}{problem}"
