"""What the main process changed in what it was sent, brought back into the objects that were sent.

A trainer travels as one pickle, and everything in it has a number there: the n-th object of the one end is the n-th of
the other. So a list that a callback filled is found again by whoever still holds it in the script: as an attribute, as
a variable of a closure or as a global variable. Plain values, arrays and tensors come back; what else was set there
stays behind, and is named.
"""

from __future__ import annotations

import datetime
import io
import pickle
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # has no stubs
import numpy as np
import torch
from torch import nn

SCALARS = (str, bytes, bool, int, float, complex, type(None), PurePath, np.generic, datetime.date, datetime.timedelta)
LISTS = (list, tuple, set, frozenset, deque)
DICTS = (dict, OrderedDict, defaultdict, Counter)
LARGEST = 2**24  # bytes of a tensor or an array that comes back; weights have files of their own
STOCK = ("eyas", "torch", "numpy")  # whose objects are not named when something of theirs stays behind

Kept = dict[Any, Any] | list[Any]


@dataclass(frozen=True)
class Changes:
    """What happened to one object.

    Attributes:
        number: which one.
        items: new items of a list, set or deque, all of them; None for others.
        values: attributes, keys or variables that have another value now.
        gone: those that are there no more.
    """

    number: int
    items: list[Any] | None = None
    values: Mapping[Any, Any] | None = None
    gone: tuple[Any, ...] = ()


class Arrived:
    """The objects of a pickle in the process that it was sent to, as they were on arrival.

    Args:
        memo: number -> object, as the unpickler counted them.
        trainer: the one whose parts are not named when they stay behind: what it builds is its own.
    """

    def __init__(self, memo: Mapping[int, object], trainer: object) -> None:
        self.trainer = trainer
        self.objects = {number: thing for number, thing in memo.items() if can_change(thing)}
        self.numbers = {id(thing): number for number, thing in self.objects.items()}
        self.before = {number: shallow(thing) for number, thing in self.objects.items()}

    def changes(self) -> bytes:
        """Return what is not as it was, and names of what of it cannot be brought back."""
        left: list[str] = []
        found = [change for number in self.objects if (change := self.change_of(number, left)) is not None]
        file = io.BytesIO()
        Packer(file, self.numbers).dump((found, left))
        return file.getvalue()

    def change_of(self, number: int, left: list[str]) -> Changes | None:
        """Return what happened to one object; None for nothing that can be brought back."""
        thing, before = self.objects[number], self.before[number]
        now = shallow(thing)
        if isinstance(now, list):
            if same_items(now, before):
                return None
            if all(self.is_plain(item) for item in now):
                return Changes(number, items=now)
            left += self.names_of(thing)
            return None
        assert isinstance(before, dict)
        other = {key: value for key, value in now.items() if key not in before or before[key] is not value}
        values = {key: value for key, value in other.items() if self.is_plain(value)}
        left += [name_of(thing, key) for key in other if key not in values and self.is_users(thing)]
        gone = tuple(key for key in before if key not in now)
        return Changes(number, values=values, gone=gone) if values or gone else None

    def is_plain(self, value: object, depth: int = 6) -> bool:
        """Whether a value can be brought back: plain through and through, or one of the objects that were sent."""
        if id(value) in self.numbers or type(value) in (bool, int, float, str) or isinstance(value, SCALARS):
            return True
        if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
            return value.numel() * value.element_size() <= LARGEST
        if isinstance(value, np.ndarray):
            return value.dtype.kind != "O" and value.nbytes <= LARGEST
        if depth == 0:
            return False
        if type(value) in DICTS:
            assert isinstance(value, dict)
            return all(self.is_plain(part, depth - 1) for item in value.items() for part in item)
        return type(value) in LISTS and all(self.is_plain(item, depth - 1) for item in value)  # type: ignore[attr-defined]

    def names_of(self, thing: object) -> Iterator[str]:
        """Yield under which names one of the user's objects holds another."""
        for owner in self.objects.values():
            if self.is_users(owner) and isinstance(held := shallow(owner), dict):
                yield from (name_of(owner, key) for key, value in held.items() if value is thing)

    def is_users(self, thing: object) -> bool:
        """Whether an object is of a class of the user's, or a function or the variables around one."""
        if isinstance(thing, type | types.FunctionType | types.CellType):
            return True
        if isinstance(thing, dict):
            return "__builtins__" in thing  # global variables
        stock = type(thing).__module__.partition(".")[0] in STOCK
        return not stock and type(thing) not in LISTS and thing is not self.trainer


class Sent:
    """The same objects in the process that sent them.

    Args:
        memo: id -> (number, object), as the pickler counted them.
        stand_ins: id of what was pickled in place of an object -> that object.
    """

    def __init__(self, memo: Mapping[int, tuple[int, object]], stand_ins: Mapping[int, object]) -> None:
        self.objects = {number: stand_ins.get(key, thing) for key, (number, thing) in memo.items()}

    def take_back(self, content: bytes) -> list[str]:
        """Change the objects as the others were changed, and return names of what stayed behind."""
        found, left = Unpacker(io.BytesIO(content), self.objects).load()
        for change in found:
            apply(self.objects[change.number], change)
        return list(dict.fromkeys(left))


class Packer(cloudpickle.Pickler):
    """Refers to objects that were sent by their number; tensors travel alone, without a graph or a device."""

    def __init__(self, file: io.BytesIO, numbers: Mapping[int, int]) -> None:
        super().__init__(file)
        self.numbers = numbers

    def persistent_id(self, thing: object) -> int | None:
        return self.numbers.get(id(thing))

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, torch.Tensor):
            return thing.detach().cpu().clone().__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return super().reducer_override(thing)


class Unpacker(pickle.Unpickler):
    """Puts the objects that were sent where their numbers stand."""

    def __init__(self, file: io.BytesIO, objects: Mapping[int, object]) -> None:
        super().__init__(file)
        self.objects = objects

    def persistent_load(self, number: int) -> object:
        return self.objects[number]


# -- objects that can change -------------------------------------------------------------------------------------------
def can_change(thing: object) -> bool:
    """Whether something set in an object is worth bringing back."""
    if isinstance(thing, types.CellType) or type(thing) in (list, set, deque, *DICTS):
        return True
    if isinstance(thing, type | types.FunctionType):  # one that an interpreter can import is not that of the script
        return thing.__module__ == "__main__" or thing.__module__ not in sys.modules
    if isinstance(thing, types.ModuleType | nn.Module | torch.Tensor | Enum) or not hasattr(thing, "__dict__"):
        return False
    return type(thing).__module__.partition(".")[0] not in sys.stdlib_module_names


def shallow(thing: Any) -> Kept:
    """Return what an object holds, as it is now: a list of items, or a mapping of attributes, keys or variables."""
    if isinstance(thing, types.CellType):
        try:
            return {"cell_contents": thing.cell_contents}
        except ValueError:
            return {}
    if isinstance(thing, dict):
        return dict(thing)
    if isinstance(thing, list | set | deque):
        return list(thing)
    return {name: value for name, value in vars(thing).items() if not name.startswith("__")}  # Python's own are its own


def same_items(now: list[Any], before: Kept) -> bool:
    """Whether two lists hold the very same things."""
    return len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True))


def apply(thing: Any, change: Changes) -> None:
    """Make an object what the other became."""
    if change.items is not None:
        thing.clear()
        (thing.update if isinstance(thing, set) else thing.extend)(change.items)
        return
    assert change.values is not None
    set_one, remove = setters(thing)
    for key in change.gone:
        remove(key)
    for key, value in change.values.items():
        set_one(key, value)


def setters(thing: Any) -> tuple[Callable[[Any, Any], object], Callable[[Any], object]]:
    """Return what sets and what removes a key, a variable or an attribute, without asking the object's own setter."""
    if isinstance(thing, type | types.CellType):
        return lambda key, value: setattr(thing, key, value), lambda key: delattr(thing, key)
    held = thing if isinstance(thing, dict) else vars(thing)
    return held.__setitem__, lambda key: held.pop(key, None)


def name_of(thing: object, key: object) -> str:
    """Return how people know what an object holds."""
    if isinstance(thing, types.CellType):
        return "a variable around a function"
    if isinstance(thing, dict):
        return f"the global variable {key}"
    return f"{thing.__qualname__ if isinstance(thing, type | types.FunctionType) else type(thing).__name__}.{key}"
