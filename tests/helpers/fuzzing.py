"""What kinds of fuzzed input share: what a case is, odd values, and how bytes, values and YAML texts are changed."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import yaml

from hostile import laughs


class Case(NamedTuple):
    """One input.

    Attributes:
        change: how it was made, for the table.
        use: does with it what people do; raises if that does not work.
        names: what a refusal must speak of, the file; "" where it may be about something else.
    """

    change: str
    use: Callable[[], object]
    names: str


class Kind(Protocol):
    """A kind of input. Made once, with a folder of its own; sound inputs are made then."""

    def __init__(self, folder: Path) -> None: ...

    def case(self, rng: random.Random) -> Case:
        """Return a case that only ``rng`` decides on; its files take the place of those of the case before."""


PLAIN: tuple[Callable[[], Any], ...] = (
    *(lambda value=value: value for value in (None, True, -1, 0, 1, 3, 2**31, 2**63, 10**30, 0.5, -1e300)),
    *(lambda value=value: value for value in (math.nan, math.inf, "", "x", "../x", "~x/y", "9" * 1000, "x" * 5000)),
    *(lambda value=value: value for value in ("\x1b[2J", "\n" * 50, "\0", "nan", "[", "a: b")),
    *(list, dict, lambda: [[[[]]]], lambda: {"a": {"b": 1}}, lambda: [1] * 1000),
)
"""Makers of odd values that YAML can hold."""
ODD = (*PLAIN, laughs, tuple, lambda: (1, 2), lambda: "\ud800", lambda: b"x")
"""Makers of odd values."""


# -- bytes -------------------------------------------------------------------------------------------------------------
def flip(data: bytes, rng: random.Random) -> bytes:
    """Flip some bits."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 20))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Leave out the end."""
    return data[: rng.randrange(len(data))]


def shift(data: bytes, rng: random.Random) -> bytes:
    """Take a piece out, put one in, or put one over another."""
    at, length = rng.randrange(len(data)), rng.choice((1, 4, 64, 4096))
    piece = rng.randbytes(length) if rng.random() < 0.5 else data[rng.randrange(len(data)) :][:length]
    return data[:at] + rng.choice((b"", piece)) + data[at + rng.choice((0, length)) :]


DEPTH = 12  # values deeper in others are not changed: some are without end

BYTES: Mapping[str, Callable[[bytes, random.Random], bytes]] = {"bits flipped": flip, "cut off": cut, "shifted": shift}


# -- values ------------------------------------------------------------------------------------------------------------
def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of keys to every value inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        yield (*path, key)
        if len(path) < DEPTH:
            yield from places(item, (*path, key))


def inside(value: Any, path: Any) -> Any:
    """Return what lies at a path."""
    for key in path:
        value = value[key]
    return value


def put(content: Any, place: Any, value: Any) -> None:
    """Put a value in a place; tuples on the way are made anew."""
    *path, key = place
    outer = inside(content, path)
    if isinstance(outer, tuple):
        put(content, path, (*outer[:key], value, *outer[key + 1 :]))
    else:
        outer[key] = value


def remove(content: Any, rng: random.Random) -> None:
    """Take an entry out, wherever in it."""
    *path, key = rng.choice(list(places(content)))
    outer = inside(content, path)
    if isinstance(outer, tuple):
        put(content, path, outer[:key] + outer[key + 1 :])
    else:
        del outer[key]


def swap(content: Any, rng: random.Random, odd: tuple[Callable[[], Any], ...] = ODD) -> None:
    """Put an odd value, or one from elsewhere, in the place of another; places near the top are as likely as all."""
    every = list(places(content))
    shallow = [place for place in every if len(place) <= 2 or place[0] not in ("model", "state")]
    place = rng.choice(shallow if rng.random() < 0.5 else every)
    value = rng.choice(odd)() if rng.random() < 0.8 else copy.deepcopy(inside(content, rng.choice(shallow)))
    put(content, place, value)


def swap_number(content: Any, rng: random.Random) -> None:
    """Put another number in the place of one."""
    every = [place for place in places(content) if isinstance(inside(content, place), (int, float))]
    put(content, rng.choice(every), rng.choice((0, -1, 2, 7, 64, 1000, 10**5, 10**9, 10**30, 0.1, 1e9, math.nan)))


# -- YAML --------------------------------------------------------------------------------------------------------------
MARKS = (
    *("&a ", "*a", "<<: *a", "!!python/object/apply:os.system [ls]", "!x ", "[", "]", "{", "}", "? ", "- ", ": ", "\t"),
    *("|", ">", "'", '"', "%YAML 9.9\n", "\n---\n", "\n...\n", "\0", "\x85", "#", ",", "@", "`", "\n", "\r", "  ", "="),
)
"""What means something in YAML."""


def insert_mark(text: str, rng: random.Random) -> str:
    """Put what means something somewhere."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(MARKS) + text[at:]
    return text


def repeat_line(text: str, rng: random.Random) -> str:
    """Put one line in another place too."""
    lines = text.splitlines(keepends=True)
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    return "".join(lines)


def blow_up(text: str, rng: random.Random) -> str:
    """Give one of its keys, or another, a few letters that stand for much."""
    key = rng.choice([*yaml.safe_load(text), "other"])
    aliases = "".join(f", &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
    size = rng.choice((100, 10_000, 300_000))
    values = (
        *(f"[&a0 [x, x]{aliases}]", "[" * size, "{a: " * size, "- " * size, "? " * size, "&s [*s]", "&s {<<: *s}"),
        *("9" * size, "1" + ":59" * size, "0x" + "f" * size, "1000000000", "1e999", "-.inf", "2026-99-99"),
        *(f"[{'1,' * size}]", f"{{{', '.join(f'{i}: x' for i in range(size))}}}"),
        *(f'"{"x" * size}"', "'" + "\n" * size + "'"),
    )
    kept = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(f"{key}:"))
    return f"{kept}\n{key}: {rng.choice(values)}\n"


TEXT: Mapping[str, Callable[[str, random.Random], str]] = {
    "mark inserted": insert_mark,
    "line repeated": repeat_line,
    "blown up": blow_up,
}
VALUES: Mapping[str, Callable[[Any, random.Random], None]] = {
    "entry removed": remove,
    "value swapped": lambda content, rng: swap(content, rng, PLAIN),
    "number swapped": swap_number,
}


def changed_yaml(content: Any, rng: random.Random) -> tuple[str, bytes]:
    """Return a change of plain values, or of the YAML that they are written as: its name, and the bytes of the file."""
    change = rng.choice((*BYTES, *TEXT, *VALUES))
    if change in VALUES:
        content = copy.deepcopy(content)
        for _ in range(rng.choice((1, 1, 3))):
            VALUES[change](content, rng)
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=rng.choice((None, False, True)))
    if change in TEXT:
        text = TEXT[change](text, rng)
    data = text.encode("utf-8", "replace")
    return change, BYTES[change](data, rng) if change in BYTES else data
