"""Boxes whose size or aspect is unlike that of all others of their class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eyas.doctor.case import Case, Split
from eyas.doctor.finding import Finding, counted, finding

NAME = "odd"
FENCE = 4.0  # interquartile ranges beyond the quartiles; of a normal distribution one in 10^9 lies there
LEAST = 30  # boxes of a class from which on there is a usual size
RARE = 0.01  # share of a class's boxes: where more are odd, its objects are simply of many shapes


def outlying(values: np.ndarray) -> np.ndarray:
    """(n,) by how many interquartile ranges each value lies beyond the quartiles; 0 between them.

    Values of which the middle half is equal have no scale, and none is outlying.
    """
    low, high = np.quantile(values, [0.25, 0.75])
    if high == low:
        return np.zeros(len(values))
    return np.maximum(np.maximum(low - values, values - high), 0) / (high - low)


def look(case: Case) -> Iterator[Finding]:
    """Compare the boxes of each class; those at a border are cut off there, and left aside."""
    for split in case.splits.values():
        free = np.asarray(~split.at_border.any(axis=1) & (split.sides > 0).all(axis=1))
        width, height = np.log(split.sides, out=np.zeros_like(split.sides), where=split.sides > 0).T
        for kind, values, unit in (
            ("odd size", (width + height) / 2, "{:.0f} px square"),
            ("odd aspect", width - height, "{:.2g} times as wide as high"),
        ):
            yield from _tell(case, split, free, values, kind, unit)


def _tell(case: Case, split: Split, free: np.ndarray, values: np.ndarray, kind: str, unit: str) -> Iterator[Finding]:
    found: list[tuple[float, int, str]] = []
    for cls, name in case.names.items():
        rows = np.flatnonzero(free & (split.cls == cls))
        if len(rows) < LEAST:
            continue
        beyond = outlying(values[rows])
        odd = np.flatnonzero(beyond > FENCE).tolist()
        if len(odd) <= max(RARE * len(rows), 1):
            usual = np.exp(np.median(values[rows]))
            found += [
                (-beyond[i], int(rows[i]), f"{name} {unit.format(np.exp(values[rows[i]]))}, usual is {usual:.3g}")
                for i in odd
            ]
    if found:
        boxes = counted(len(found), "box is of an {} for its class", "boxes are of an {} for their class").format(kind)
        yield finding(
            NAME,
            kind,
            "warning",
            f"{split.name}: {boxes}, unlike all others",
            "Look at the pictures: a slip of the hand, a wrong class, or several objects in one box.",
            [split.place_of(row, what=what) for _, row, what in sorted(found)],
        )
