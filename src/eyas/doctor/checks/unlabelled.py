"""Images without labels that look as if these had been forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eyas.data.files import ABSENT
from eyas.doctor.alike import EQUAL
from eyas.doctor.case import Case, Split
from eyas.doctor.finding import Finding, Place, counted, finding, percent

NAME = "unlabelled"
MINORITY = 0.2  # share of a split up to which missing label files are an exception there
RARE = 0.02  # share of a split up to which images without objects are an exception there


def look(case: Case) -> Iterator[Finding]:
    """Name images without labels whose neighbours, or whose twins, have some."""
    yield from _twins(case)
    for split in case.splits.values():
        empty = split.index.objects() == 0
        absent = empty & (split.index.stats[:, 2] == ABSENT.size)
        if not empty.all():
            yield from _without_file(split, absent)
            yield from _exceptions(split, empty & ~absent)


def _without_file(split: Split, absent: np.ndarray) -> Iterator[Finding]:
    images = np.flatnonzero(absent).tolist()
    if images:
        yield finding(
            NAME,
            "no label file",
            "warning" if len(images) <= MINORITY * len(split) else "note",
            f"{split.name}: {counted(len(images), 'image has', 'images have')} no label file "
            f"({percent(len(images), len(split))}), and {'is' if len(images) == 1 else 'are'} trained as background",
            "Label them; if nothing is to be seen there, an empty label file says so.",
            (split.place(i) for i in images),
            len(images),
        )


def _exceptions(split: Split, empty: np.ndarray) -> Iterator[Finding]:
    images = np.flatnonzero(empty).tolist()
    if images and len(images) <= RARE * len(split):
        yield finding(
            NAME,
            "no label amid labelled images",
            "note",
            f"{split.name}: {counted(len(images), 'image has', 'images have')} no object, and all others "
            f"({percent(len(split) - len(images), len(split))}) have some",
            "See whether they were forgotten.",
            (split.place(i) for i in images),
            len(images),
        )


def _twins(case: Case) -> Iterator[Finding]:
    """An image without labels that shows what a labelled one shows."""
    places: list[Place] = []
    for pair in case.alike:
        a, b = pair.split_a.place(pair.a), pair.split_b.place(pair.b)
        labelled = [bool(split.index.objects()[i]) for split, i in ((pair.split_a, pair.a), (pair.split_b, pair.b))]
        if labelled[0] != labelled[1]:
            bare, other = (b, a) if labelled[0] else (a, b)
            what = "the same file" if pair.how == EQUAL else "nearly the same"
            places.append(Place(bare.split, bare.file, bare.image, what=what, beside=other))
    if places:
        yield finding(
            NAME,
            "same scene with and without labels",
            "warning",
            f"{counted(len(places), 'image has', 'images have')} no label, and an image that shows the same has some",
            "Label them all, or none.",
            places,
        )
