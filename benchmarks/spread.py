"""Medians with their spread, of one side and of two that were measured in turns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

Rows = Sequence[dict[str, float]]  # one for each repetition: {"what, unit": number}


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some numbers, and how many they are."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        """Return the spread of at least one number."""
        return cls(median(numbers), min(numbers), max(numbers), len(numbers))

    def __str__(self) -> str:
        if self.count == 1:
            return short(self.median)
        return f"{short(self.median)} ({short(self.low)}..{short(self.high)})"


def short(number: float) -> str:
    """Return a number in at least three digits, and never in powers of ten."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def spreads(rows: Rows) -> dict[str, Spread]:
    """Return the spread of everything that was measured; what only some rows hold, of those."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: Spread.of([row[name] for row in rows if name in row]) for name in names}


def ratios(first: Iterable[Rows], second: Iterable[Rows]) -> dict[str, Spread]:
    """Return how many times the first side's numbers the second's are, turn by turn.

    Each turn is a pair of rows measured one after the other, so that a machine that slows down slows both of a pair.
    A number that one side lacks, or that is 0 for the first, has no ratio.
    """
    found: dict[str, list[float]] = {}
    for one, other in zip(first, second, strict=True):
        before, now = spreads(one), spreads(other)
        for name in before:
            if name in now and before[name].median:
                found.setdefault(name, []).append(now[name].median / before[name].median)
    return {name: Spread.of(numbers) for name, numbers in found.items()}


def plain(found: dict[str, Spread]) -> dict[str, dict[str, float]]:
    """Return spreads as JSON holds them."""
    return {name: asdict(spread) for name, spread in found.items()}
