"""Class names of a data description, and what label files call each class."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from eyas.names import nearest
from eyas.types import CLASSES

IDS = 2**31  # of classes in label files lie below


class Classes(NamedTuple):
    """Classes of a data set.

    Attributes:
        names: {class: name}, classes from 0 without a gap.
        ids: the id in label files of each class, rising; None where nothing is said of them, so that they count from 0.
    """

    names: dict[int, str]
    ids: tuple[int, ...] | None


def read_classes(content: Mapping[str, Any], where: str) -> Classes:
    """Read the keys `names`, `nc` and `ids_start` of a description.

    Names are a list, or a mapping of the ids in the label files: with gaps, or from another id than 0, the classes are
    numbered in the order of their ids.

    Raises:
        ValueError: one is missing or no such thing, a name stands twice, two contradict each other.
    """
    nc = _whole(content, "nc", 1, CLASSES, where)
    start = _whole(content, "ids_start", 0, IDS - CLASSES, where)
    named = _names(content, nc, where)
    _refuse_twice(named, where)
    if nc is not None and nc != len(named):
        raise ValueError(f"{where}: nc={nc}, but names lists {len(named)} classes. Remove nc or correct names.")
    names, given = dict(enumerate(named.values())), tuple(named)
    if given != tuple(names):
        if start not in (None, given[0]):
            raise ValueError(
                f"{where}: ids_start={start}, but the ids in names start at {given[0]}. Remove ids_start or correct "
                "names."
            )
        return Classes(names, given)
    return Classes(names, None if start is None else tuple(range(start, start + len(names))))


def _whole(content: Mapping[str, Any], key: str, least: int, most: int, where: str) -> int | None:
    value = content.get(key)
    if value is None:
        return None
    number = _number(value)
    if number is None or not least <= number <= most:
        what = "number of classes" if key == "nc" else "class id"
        raise ValueError(
            f"{where}: {key}={reprlib.repr(value)} must be a whole {what}, at least {least}, at most {most:,}."
        )
    return number


def _number(value: object) -> int | None:
    """The whole number that a value is, or is written as; None if it is none, or has many digits."""
    text = str(value)
    written = len(text) <= len(str(IDS)) and text.isascii() and text.isdigit() and not isinstance(value, bool)
    return int(text) if written else None


def _names(content: Mapping[str, Any], nc: int | None, where: str) -> dict[int, str]:
    """{id: name} as the description has it, in the order of the ids."""
    names = content.get("names")
    if names is None:
        if nc is None:
            near = nearest("names", [str(key) for key in content if key not in ("train", "val", "test")])
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"{where}: key 'names' (list of class names) is missing.{hint}")
        return {i: f"class_{i}" for i in range(nc)}
    if isinstance(names, list | tuple):
        names = dict(enumerate(names))
    if not isinstance(names, Mapping) or not names:
        raise ValueError(
            f"{where}: names={reprlib.repr(names)} must be a list like [cat, dog], or a mapping {{0: cat, 1: dog}}."
        )
    if len(names) > CLASSES:
        raise ValueError(f"{where}: names lists {len(names):,} classes, and {CLASSES:,} are the most.")
    read: dict[int, str] = {}
    for key, name in names.items():
        number = _number(key)
        if number is None or number >= IDS:
            raise ValueError(f"{where}: names has the key {reprlib.repr(key)}; keys are class ids 0, 1, 2, ...")
        if name is None or isinstance(name, bool | list | Mapping):
            raise ValueError(
                f'{where}: the name of class {key} is read as {reprlib.repr(name)}; put it in quotes, such as "yes".'
            )
        if number in read:
            raise ValueError(f"{where}: names has the class id {number} twice, as {read[number]!r} and {name!r}.")
        read[number] = str(name)
    return dict(sorted(read.items()))


def _refuse_twice(names: Mapping[int, str], where: str) -> None:
    first: dict[str, int] = {}
    for key, name in names.items():
        if name in first:
            raise ValueError(
                f"{where}: names has {name!r} twice, as class {first[name]} and {key}. Give each class a name of its "
                "own, or one id in the labels if they are the same."
            )
        first[name] = key
