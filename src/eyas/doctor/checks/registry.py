"""All checks that need nothing but the data, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from eyas.doctor.case import Case
from eyas.doctor.checks import classes, disagreement, exif, files, leaks, odd, overlaps, shift, sizes, unlabelled
from eyas.doctor.finding import Finding


class Check(NamedTuple):
    """One check: its name, what it looks for, and the function that looks."""

    name: str
    what: str
    look: Callable[[Case], Iterable[Finding]]


CHECKS = (
    Check(files.NAME, "broken files, bad label rows, labels without an image, empty pictures", files.look),
    Check(leaks.BETWEEN, "the same image, or nearly the same, in two splits", leaks.look_between),
    Check(leaks.WITHIN, "the same image twice in one split", leaks.look_within),
    Check(classes.NAME, "classes missing from a split, rare ones, imbalance", classes.look),
    Check(overlaps.NAME, "duplicate boxes, boxes of two classes, boxes inside another", overlaps.look),
    Check(sizes.NAME, "boxes too small at imgsz, boxes as large as the image", sizes.look),
    Check(odd.NAME, "boxes of a size or an aspect unlike all others of their class", odd.look),
    Check(unlabelled.NAME, "images whose labels seem to be forgotten", unlabelled.look),
    Check(exif.NAME, "images that are turned by their EXIF data", exif.look),
    Check(shift.NAME, "val or test unlike train in classes, boxes or brightness", shift.look),
)
MODEL = disagreement.NAME
"""Name of the check that needs a trained model."""

WHAT = {check.name: check.what for check in CHECKS} | {MODEL: "labels that a model strongly disagrees with (model=...)"}
