"""Which methods of a class are a user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def overrides(cls: type) -> dict[str, Callable[..., Any]]:
    """Return the methods of a class that are not Eyas' own and take the place of one that is, by name.

    One that only wraps Eyas' own (``functools.wraps``) replaces nothing, and neither does one that stands behind it in
    the order of the bases.
    """
    found: dict[str, object] = {}
    for base in cls.__mro__:
        for name, value in vars(base).items():
            found.setdefault(name, value)
    stock = [vars(base) for base in stock_bases(cls)]
    methods = {name: inspect.unwrap(fn) for name, fn in found.items() if inspect.isfunction(fn)}
    return {name: fn for name, fn in methods.items() if not is_stock(fn) and any(name in own for own in stock)}


def stock_bases(cls: type) -> list[type]:
    """Return Eyas' own classes among the bases."""
    return [base for base in cls.__mro__ if is_stock(base)]


def is_stock(thing: type | Callable[..., Any]) -> bool:
    """Whether a class or a function is Eyas' own."""
    return thing.__module__.startswith("eyas.")
