"""What a checkpoint may hold: tensors and plain values, within the same bounds where it is written and read.

What was written can therefore be read, and a file that somebody made up costs no more than those that are real.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from eyas.checkpoint.errors import CheckpointError
from eyas.checkpoint.pickled import DIMENSIONS, Name, OddKey, Stub, TensorRef, is_key
from eyas.checkpoint.tensors import Tensors

DEPTH: Final = 64  # of values inside values; real files stay below 12
VALUES: Final = 500_000  # the state of a large training has some 40,000, and 20 more for each epoch
TENSOR: Final = 10  # values that a tensor counts as, for its description is as long
TUPLE_KEY: Final = 50  # values that a key counts as that is a tuple, for such keys can be made to collide
KEY_ITEMS: Final = 4  # of such a key
BITS: Final = 128  # of a whole number


def check_plain(value: Any) -> None:
    """Refuse anything that could not be read again.

    Raises:
        CheckpointError: names the place and the type.
    """
    Walk(_written).copy(value)


def read_plain(content: Any, tensors: Tensors) -> Any:
    """Return the tensors and plain values that a pickle describes, see ``read_pickle``.

    Raises:
        CheckpointError: something in it is neither, or there is no end of it.
    """

    def read(value: Any) -> Tensor | None:
        return tensors.make(value) if type(value) is TensorRef else None

    return Walk(read).copy(content)


def plain_values(content: Any) -> Any:
    """Return the plain values that a pickle describes.

    Raises:
        CheckpointError: something in it is none, or there is no end of it.
    """
    return Walk(lambda _: None).copy(content)


def only_tensors(content: Any) -> dict[str, Any]:
    """Return the dictionaries by texts in what a pickle describes, and the tensors in these; all else is left out.

    A module of a TorchScript program is such a dictionary, of its parameters and the modules in it.
    """
    seen = set[int]()

    def pick(value: Any, depth: int) -> dict[str, Any]:
        if type(value) is Stub and value.cls.module.startswith("__torch__"):
            value = value.attributes
        if not isinstance(value, dict) or depth > DEPTH or id(value) in seen:
            return {}
        seen.add(id(value))
        items = [(key, item) for key, item in value.items() if type(key) is str]
        return {key: item if type(item) is TensorRef else pick(item, depth + 1) for key, item in items}

    return pick(content, 0)


class Walk:
    """The way through a value and all that is in it.

    Args:
        tensor: gives the tensor that a value without parts stands for, or None if it is no tensor.
    """

    def __init__(self, tensor: Callable[[Any], Tensor | None]) -> None:
        self.tensor = tensor
        self.left = VALUES
        self.place: list[object] = []  # keys and indices that lead to the value it is at

    def take(self, values: int) -> None:
        """Count values that were met.

        Raises:
            CheckpointError: there are too many by now, or they are too deep in others.
        """
        self.left -= values
        if self.left < 0 or len(self.place) > DEPTH:
            raise CheckpointError(
                f"{shown(self.place[:3])} has values nested in values, or repeated, without end: more than {VALUES:,}, "
                f"or {DEPTH} deep; long lists of numbers belong into tensors"
            )

    def copy(self, value: Any) -> Any:
        """Return a copy of a value, with tensors where they belong."""
        self.take(1)
        kind = type(value)
        if kind in (str, float, bool, type(None)) or (kind is int and value.bit_length() <= BITS):
            return value
        if kind in (list, tuple):
            return kind([self.inside(i, item) for i, item in enumerate(value)])
        if kind in (dict, OrderedDict):
            found = kind((self.key(key), self.inside(key, item)) for key, item in value.items())
            if isinstance(found, OrderedDict) and "_metadata" in vars(value):  # the versions of a module's layers
                vars(found)["_metadata"] = self.inside("_metadata", vars(value)["_metadata"])
            return found
        tensor = self.tensor(value)
        if tensor is None:
            raise CheckpointError(
                f"{shown(self.place)} is {what(value)}; a checkpoint holds tensors and plain values only"
            )
        self.take(TENSOR)
        return tensor

    def inside(self, key: object, value: Any) -> Any:
        """Return a copy of what lies at a key or an index of the value it is at."""
        self.place.append(key)
        copied = self.copy(value)
        self.place.pop()
        return copied

    def key(self, key: Any) -> Any:
        """Return a key of a dictionary: a plain value, or a short tuple of those."""
        key = key.key if type(key) is OddKey else key
        if is_key(key):
            return key
        self.take(TUPLE_KEY)
        if type(key) is tuple and len(key) <= KEY_ITEMS and all(is_key(item) for item in key):
            return key
        raise CheckpointError(f"{shown(self.place)} has a key that is no text or number, or a large one")


def _written(value: Any) -> Tensor | None:
    """Return a tensor as it is, if its numbers lie in memory as those of files do."""
    if not isinstance(value, Tensor):
        return None
    plain = value.layout is torch.strided and value.device.type != "meta" and not value.is_quantized
    return value if plain and value.ndim <= DIMENSIONS and not value.is_conj() and not value.is_neg() else None


def shown(place: list[object]) -> str:
    """Return a place as one would write it."""
    keys = [ascii(key) if is_key(key) else "..." for key in place]
    return "checkpoint" + "".join(f"[{key[:40]}]" for key in keys)


def what(value: Any) -> str:
    """Return what a value is, in words."""
    if isinstance(value, (Name, Stub)):
        return f"{value if isinstance(value, Name) else value.cls}"
    return "a number of too many digits" if type(value) is int else f"a {type(value).__name__}"
