"""An object that is labelled twice: two boxes that are nearly one, or one inside another of its class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from eyas.doctor.case import Case, Split
from eyas.doctor.finding import Finding, counted, finding

NAME = "overlaps"
SAME = 0.9  # IoU of two boxes of one object. Boxes that were drawn twice by hand reach 0.9; neighbours do not.
INSIDE = 0.95  # share of the smaller box that lies in the larger one
SIMILAR = 0.25  # smaller area / larger area, below which a box inside another is an object in front of another


class Overlaps(NamedTuple):
    """Pairs of boxes of one image that touch: rows a < b, IoU, share of the smaller box inside, areas' ratio."""

    a: np.ndarray
    b: np.ndarray
    iou: np.ndarray
    inside: np.ndarray
    ratio: np.ndarray


def overlaps(split: Split) -> Overlaps:
    """Return all overlapping pairs: each box is compared with the 1st, 2nd, 3rd ... after it, all images at once."""
    area = split.sides.prod(axis=1)
    parts = []
    for lag in range(1, split.index.max_objects()):
        a = np.flatnonzero(split.image_of[:-lag] == split.image_of[lag:])
        b = a + lag
        low = np.maximum(split.xyxy[a, :2], split.xyxy[b, :2])
        high = np.minimum(split.xyxy[a, 2:], split.xyxy[b, 2:])
        inter = (high - low).clip(min=0).prod(axis=1)
        hit = inter > 0
        a, b, inter = a[hit], b[hit], inter[hit]
        small, large = np.minimum(area[a], area[b]), np.maximum(area[a], area[b])
        parts.append((a, b, inter / (small + large - inter), inter / small, small / large))
    empty = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0)
    return Overlaps(*(np.concatenate(columns) for columns in zip(empty, *parts, strict=True)))


def look(case: Case) -> Iterator[Finding]:
    """Compare the boxes of each image."""
    for split in case.splits.values():
        found = overlaps(split)
        one_class = split.cls[found.a] == split.cls[found.b]
        same = found.iou >= SAME
        inside = (found.inside >= INSIDE) & (found.ratio >= SIMILAR) & ~same
        for fault, which in (
            (TWICE, same & one_class),
            (TWO_CLASSES, same & ~one_class),
            (WITHIN, inside & one_class),
        ):
            yield from _tell(case, split, found, which, fault)


class Fault(NamedTuple):
    """What a pair of boxes is called, what is the matter with it, and what to do."""

    kind: str
    text: str
    action: str


TWICE = Fault(
    "duplicate box",
    "labelled twice: two boxes of one class are nearly the same",
    "Remove one of each pair: the second can only be a miss.",
)
TWO_CLASSES = Fault(
    "one box, two classes",
    "given two classes: two boxes are nearly the same",
    "Keep the right one: a model cannot be right about both.",
)
WITHIN = Fault(
    "box inside another",
    "labelled inside another of the same class, and not much smaller",
    "Remove the box that does not fit; where both are right, leave them.",
)


def _tell(case: Case, split: Split, found: Overlaps, which: np.ndarray, fault: Fault) -> Iterator[Finding]:
    rows = np.flatnonzero(which)
    rows = rows[np.argsort(-found.iou[rows], kind="stable")]
    if len(rows):
        places = (
            split.place_of(int(found.a[row]), int(found.b[row]), what=_names(case, split, found, row))
            for row in rows.tolist()
        )
        text = f"{split.name}: {counted(len(rows), 'object is', 'objects are')} {fault.text}"
        yield finding(NAME, fault.kind, "warning", text, fault.action, places, len(rows))


def _names(case: Case, split: Split, found: Overlaps, row: int) -> str:
    a, b = (case.names[int(split.cls[rows[row]])] for rows in (found.a, found.b))
    return f"{a if a == b else f'{a} and {b}'}, IoU {found.iou[row]:.2f}"
