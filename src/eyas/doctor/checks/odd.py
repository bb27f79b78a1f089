"""Boxes whose size or aspect is unlike that of all others of their class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eyas.doctor.case import Case, Split
from eyas.doctor.finding import Finding, counted, finding

NAME = "odd"
FENCE = 4.0  # interquartile ranges beyond the quartiles; of a normal distribution one in 10^9 lies there
LEAST = 30  # boxes of a class from which on there is a usual size
RARE, A_FEW = 0.01, 5  # of a class's boxes, share and number: where more are odd, its objects are of many shapes


def outlying(values: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """(n,) by how many interquartile ranges of ``usual`` (m,) each value lies above its quartiles, negative below them.

    Usual values of which the middle half is equal have no scale, and nothing is outlying.
    """
    low, high = np.quantile(usual, [0.25, 0.75])
    if high == low:
        return np.zeros(len(values))
    return (np.maximum(values - high, 0) - np.maximum(low - values, 0)) / (high - low)


def look(case: Case) -> Iterator[Finding]:
    """Compare the boxes of each class. What is cut off at a border may have any aspect, and any smaller size."""
    for split in case.splits.values():
        whole = np.asarray(~split.at_border.any(axis=1))
        width, height = np.log(np.maximum(split.sides, 1e-3)).T
        yield from _tell(case, split, whole, (width + height) / 2, "odd size", "{:.0f} px square")
        yield from _tell(case, split, whole, width - height, "odd aspect", "{:.2g} times as wide as high")


def _tell(case: Case, split: Split, whole: np.ndarray, values: np.ndarray, kind: str, unit: str) -> Iterator[Finding]:
    found: list[tuple[float, int, str]] = []
    for cls, name in case.names.items():
        rows = np.flatnonzero(split.cls == cls)
        usual = values[rows[whole[rows]]]
        if len(usual) < LEAST:
            continue
        beyond = outlying(values[rows], usual)
        wrong = (np.abs(beyond) > FENCE) & (whole[rows] | ((beyond > 0) & (kind == "odd size")))
        odd = np.flatnonzero(wrong).tolist()
        if len(odd) <= max(RARE * len(rows), A_FEW):
            middle = np.exp(np.median(usual))
            found += [
                (-abs(beyond[i]), int(rows[i]), f"{name} {unit.format(np.exp(values[rows[i]]))}, usual is {middle:.3g}")
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
