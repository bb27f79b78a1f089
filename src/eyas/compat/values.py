"""Two kinds of values that scripts read: losses that are a dictionary and a tensor, and values that are worked out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

Value = TypeVar("Value")


class Losses(dict[str, Tensor]):
    """Losses by name, which answer as a tensor of their values too: ``losses.tolist()``, ``losses[0]``, ``losses * 2``.

    They stay on the device until somebody reads a number. Iterating gives the names, as of any dictionary.
    """

    @property
    def tensor(self) -> Tensor:
        """(n,) float32 values in the order of the names, on their device."""
        return torch.stack([value.detach().float().reshape(()) for value in self.values()]) if self else torch.zeros(0)

    def __getitem__(self, key: Any) -> Tensor:
        """Return the loss of a name, or the values at an index."""
        return super().__getitem__(key) if isinstance(key, str) else self.tensor[key]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.tensor, name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return the values for NumPy; waits for the device."""
        return self.tensor.cpu().numpy().astype(dtype or np.float32)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Take part in ``torch.stack([losses])``, ``torch.isnan(losses)`` and the like as the tensor."""
        return func(*plain(args), **plain(dict(kwargs or {})))

    def __mul__(self, other: Any) -> Tensor:
        return self.tensor * plain(other)

    def __truediv__(self, other: Any) -> Tensor:
        return self.tensor / plain(other)

    def __add__(self, other: Any) -> Tensor:
        return self.tensor + plain(other)

    def __sub__(self, other: Any) -> Tensor:
        return self.tensor - plain(other)

    __rmul__, __radd__ = __mul__, __add__


def plain(value: Any) -> Any:
    """Return the value with the tensors of all ``Losses`` in it, however deep they lie in lists and tuples."""
    if isinstance(value, Losses):
        return value.tensor
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return {key: plain(item) for key, item in value.items()} if type(value) is dict else value


class Derived(Generic[Value]):
    """A value worked out from others each time it is read; one that a script assigns takes its place."""

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self.make, self.__doc__ = make, make.__doc__

    def __get__(self, owner: Any, kind: type | None = None) -> Value:
        return self.make(owner) if owner is not None else self  # type: ignore[return-value]
