"""Labels that a trained model strongly disagrees with; asked only when a model is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from eyas.data.progress import with_progress
from eyas.doctor.case import Case, Split
from eyas.doctor.detector import SecondOpinion
from eyas.doctor.finding import Finding, Place, Seen, counted, finding, percent

NAME = "model"
CONFIDENT = 0.6  # score of a detection that is taken for an object
APART = 0.3  # IoU below which a detection and a label are not of one object
SAME = 0.6  # IoU from which on they are
WEAK = 0.2  # share of the labels: a model that misses more has no say about labels that it misses


@dataclass
class _Doubts:
    """What was found in one split; the strongest doubt is sorted to the front by its score."""

    missing: list[tuple[float, Place]] = field(default_factory=list)
    other: list[tuple[float, Place]] = field(default_factory=list)
    unseen: list[Place] = field(default_factory=list)


def look(case: Case, opinion: SecondOpinion) -> Iterator[Finding]:
    """Compare labels with what the model finds."""
    known = set(opinion.class_of.values())
    for split in case.splits.values():
        doubts, labels = _Doubts(), 0
        images = opinion.look_at(split)
        for i, seen in with_progress(images, title=f"Predicting {split.name}", total=len(split)):
            labels += _compare(case, split, i, seen, known, doubts)
        yield from _tell(split, doubts, labels)


def _compare(case: Case, split: Split, i: int, seen: tuple[Seen, ...], known: set[int], doubts: _Doubts) -> int:
    """Note the doubts about one image; returns how many of its labels the model could have found."""
    first = int(split.index.label_offsets[i])
    rows = slice(first, int(split.index.label_offsets[i + 1]))
    boxes, cls = split.xyxy[rows], split.cls[rows]
    iou = _iou(np.array([found.box for found in seen]).reshape(-1, 4), boxes)
    for number, found in enumerate(seen):
        if found.score < CONFIDENT:
            continue
        name, row = case.names[found.cls], iou[number]
        if row.max(initial=0) < APART:
            place = split.place(i, f"{name} {found.score:.2f}, no label", seen=(found,))
            doubts.missing.append((-found.score, place))
        elif row.max() >= SAME and found.cls not in cls[row >= APART]:
            label = int(row.argmax())
            if int(cls[label]) in known:
                what = f"labelled {case.names[int(cls[label])]}, the model says {name} {found.score:.2f}"
                place = Place(split.name, split.index.path(i), i, labels=(label,), what=what, seen=(found,))
                doubts.other.append((-found.score, place))
    could = [label for label in range(len(cls)) if int(cls[label]) in known]
    for label in could:
        if iou[:, label].max(initial=0) < APART:
            doubts.unseen.append(split.place_of(first + label, what=f"{case.names[int(cls[label])]}, not found"))
    return len(could)


def _tell(split: Split, doubts: _Doubts, labels: int) -> Iterator[Finding]:
    if doubts.missing:
        yield finding(
            NAME,
            "found, not labelled",
            "warning",
            f"{split.name}: the model is sure of {counted(len(doubts.missing), 'object')} where there is no label",
            "Label what is one; what is none is worth another look after training.",
            [place for _, place in sorted(doubts.missing, key=lambda pair: pair[0])],
        )
    if doubts.other:
        yield finding(
            NAME,
            "found as another class",
            "warning",
            f"{split.name}: the model is sure that {counted(len(doubts.other), 'object is', 'objects are')} of another "
            "class than labelled",
            "Correct the label where the model is right.",
            [place for _, place in sorted(doubts.other, key=lambda pair: pair[0])],
        )
    if doubts.unseen:
        weak = len(doubts.unseen) > WEAK * labels
        yield finding(
            NAME,
            "labelled, never found",
            "note" if weak else "warning",
            f"{split.name}: {len(doubts.unseen):,} of {labels:,} labels ({percent(len(doubts.unseen), labels)}) "
            f"{'is' if len(doubts.unseen) == 1 else 'are'} not found by the model, however unsure it may be"
            + (": it finds too little to say much about labels" if weak else ""),
            "Look at them: labels of nothing, of another image, or objects that are hard to see.",
            doubts.unseen,
        )


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) intersection over union of corner boxes (n, 4) and (m, 4) in px."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = (high - low).clip(min=0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return inter / np.maximum(areas[0][:, None] + areas[1][None] - inter, 1e-9)
