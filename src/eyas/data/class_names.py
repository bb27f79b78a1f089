"""Class names of a data description, and what label files call each class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from eyas.names import nearest


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
    nc, start = _whole(content, "nc", 1, where), _whole(content, "ids_start", 0, where)
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


def _whole(content: Mapping[str, Any], key: str, least: int, where: str) -> int | None:
    value = content.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not (str(value).isascii() and str(value).isdigit()) or int(value) < least:
        what = "number of classes" if key == "nc" else "class id"
        raise ValueError(f"{where}: {key}={value!r} must be a whole {what}, at least {least}.")
    return int(value)


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
        raise ValueError(f"{where}: names={names!r} must be a list like [cat, dog], or a mapping {{0: cat, 1: dog}}.")
    read: dict[int, str] = {}
    for key, name in names.items():
        if isinstance(key, bool) or not (str(key).isascii() and str(key).isdigit()):
            raise ValueError(f"{where}: names has the key {key!r}; keys are class ids 0, 1, 2, ...")
        if name is None or isinstance(name, bool | list | Mapping):
            raise ValueError(f'{where}: the name of class {key} is read as {name!r}; put it in quotes, such as "yes".')
        if int(key) in read:
            raise ValueError(f"{where}: names has the class id {int(key)} twice, as {read[int(key)]!r} and {name!r}.")
        read[int(key)] = str(name)
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
