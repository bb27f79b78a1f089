"""What those who work tell of themselves: ``effects()``, option -> what they really do, in the option's own unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, Self, runtime_checkable


@runtime_checkable
class Tells(Protocol):
    """One that tells what it does, from the values that it works with and never from the options."""

    def effects(self) -> Mapping[str, object]: ...


class Words(str):
    """What was seen where there is no value that could be compared; that it was seen at all is the proof."""


class Rounded(float):
    """A value that could only be kept in steps: anything from ``low`` to ``high`` would have given the same."""

    low: float
    high: float

    def __new__(cls, value: float, low: float, high: float) -> Self:
        made = super().__new__(cls, value)
        made.low, made.high = low, high
        return made

    def __getnewargs__(self) -> tuple[float, float, float]:  # type: ignore[override]  # float's has one
        return float(self), self.low, self.high
