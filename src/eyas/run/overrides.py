"""Which methods of a class are a user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def overrides(cls: type) -> dict[str, Callable[..., Any]]:
    """Return the methods of a class that are not Eyas' own and take the place of one that is, by name."""
    found: dict[str, Callable[..., Any]] = {}
    for base in cls.__mro__:
        if base is not object and not base.__module__.startswith("eyas."):
            for name, value in vars(base).items():
                if inspect.isfunction(value):
                    found.setdefault(name, inspect.unwrap(value))
    own = {name: fn for name, fn in found.items() if not fn.__module__.startswith("eyas.")}  # wrapped, not replaced
    return {name: fn for name, fn in own.items() if any(name in vars(b) for b in stock_bases(cls))}


def stock_bases(cls: type) -> list[type]:
    """Return Eyas' own classes among the bases."""
    return [base for base in cls.__mro__ if base.__module__.startswith("eyas.")]
