"""Classes that are missing from a split, hardly there, or everywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eyas.doctor.case import Case
from eyas.doctor.finding import Finding, finding
from eyas.names import a_few

NAME = "classes"
NAMED = 5  # classes in a sentence
FEW = 10  # boxes in train
UNEVEN, VERY_UNEVEN = 10, 100  # boxes of the most frequent class / of the rarest


def look(case: Case) -> Iterator[Finding]:
    """Count boxes by class and split."""
    counts = {name: split.index.instances(len(case.names)) for name, split in case.splits.items()}
    for name, found in counts.items():
        if not found.any():
            text, action = f"{name} has no box: nothing can be measured on it", "See where its label files are."
            yield finding(NAME, "split without boxes", "error", text, action)
    counts = {name: found for name, found in counts.items() if found.any()}
    if not counts:
        return
    yield from _never(case, np.sum([*counts.values()], axis=0))
    if "train" in counts:
        train = counts.pop("train")
        yield from _missing(case, train, counts)
        yield from _few(case, train)
        yield from _uneven(case, train)


def _named(case: Case, which: np.ndarray) -> list[str]:
    return [case.names[i] for i in np.flatnonzero(which).tolist()]


def _never(case: Case, everywhere: np.ndarray) -> Iterator[Finding]:
    names = _named(case, everywhere == 0)
    if names:
        yield finding(
            NAME,
            "class never labelled",
            "warning",
            f"{len(names)} of {len(case.names)} classes have no box in any split: {a_few(names, NAMED)}",
            "Take them out of names, or label them; ids of the others then change.",
        )


def _missing(case: Case, train: np.ndarray, others: dict[str, np.ndarray]) -> Iterator[Finding]:
    for name, found in others.items():
        unlearnt = _named(case, (train == 0) & (found > 0))
        if unlearnt:
            yield finding(
                NAME,
                "class not in train",
                "error",
                f"{name} has boxes of {a_few(unlearnt, NAMED)}, and train has none: they are not learnt, and count as "
                "missed",
                "Split the data anew, so that every class is in train.",
            )
        unmeasured = _named(case, (train > 0) & (found == 0))
        if unmeasured:
            yield finding(
                NAME,
                f"class not in {name}",
                "warning",
                f"train has boxes of {a_few(unmeasured, NAMED)}, and {name} has none: nothing is measured of them "
                "there",
                f"Move some images with them to {name}.",
            )


def _few(case: Case, train: np.ndarray) -> Iterator[Finding]:
    few = (train > 0) & (train < FEW)
    if few.any():
        names = [f"{case.names[i]} {train[i]}" for i in np.flatnonzero(few).tolist()]
        text = f"train has less than {FEW} boxes of these classes: {a_few(names, NAMED)}"
        action = "Label more of them; class_weights, or images named twice in a list, help a little."
        yield finding(NAME, "few examples", "warning", text, action)


def _uneven(case: Case, train: np.ndarray) -> Iterator[Finding]:
    there = np.flatnonzero(train)
    most, least = int(there[train[there].argmax()]), int(there[train[there].argmin()])
    ratio = train[most] / train[least]
    if ratio >= UNEVEN:
        yield finding(
            NAME,
            "uneven classes",
            "warning" if ratio >= VERY_UNEVEN else "note",
            f"train has {train[most]:,} boxes of {case.names[most]} and {train[least]:,} of {case.names[least]}: "
            f"{ratio:.0f} for one",
            "Look at the metrics of each class; class_weights=balanced gives the rare ones more weight.",
        )
