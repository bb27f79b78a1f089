"""Files that cannot be used, rows of labels that are dropped, and pictures that show nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from eyas.data.files import DISGUISED, UNLISTED
from eyas.data.formats.yolo import NO_IMAGE
from eyas.data.report import weight_of
from eyas.doctor.alike import FLAT
from eyas.doctor.case import Case, Split
from eyas.doctor.finding import Finding, Place, counted, finding, percent

NAME = "files"


def look(case: Case) -> Iterator[Finding]:
    """Tell what the index has found, and what decoding every image finds beside it."""
    for name, why in case.closed.items():
        yield finding(
            NAME, "split cannot be used", "error", f"{name}: {why}", "Repair what is named; the split is not looked at."
        )
    for split in case.splits.values():
        yield from _problems(split)
        yield from _unused(split)
        yield from _undecodable(split)
        yield from _flat(split)


def _problems(split: Split) -> Iterable[Finding]:
    report = split.index.report
    for kind, count in report.counts.most_common():
        rows = [row for row in report.problems if row.kind == kind]
        kept, severity = weight_of(kind)
        first = f"; the first: {rows[0].message.rstrip('.')}" if rows and rows[0].message else ""
        yield finding(
            NAME,
            kind,
            severity,
            f"{split.name}: {kind}, {counted(count, 'time')} ({'kept' if kept else 'left out'}){first}",
            "Look at it." if kept else "Repair or remove what is named: it is not trained on.",
            [Place(split.name, row.file, line=row.line, what=row.message) for row in rows],
            count,
        )
    for doubt in report.doubts:
        yield finding(
            NAME, "doubtful values", "warning", f"{split.name}: {doubt}", "Say in the data YAML what is meant."
        )


def _unused(split: Split) -> Iterable[Finding]:
    report = split.index.report
    for reason, count in report.unused.items():
        places = [Place(split.name, file) for file in report.unused_names.get(reason, ())]
        if reason == NO_IMAGE:
            text = f"{split.name}: {counted(count, 'label file belongs', 'label files belong')} to no image"
            yield finding(NAME, reason, "warning", text, "Find the images, or remove the labels.", places, count)
        elif reason.startswith(DISGUISED):
            files = counted(count, "file is an image", "files are images")
            text = f"{split.name}: {files} under another suffix{reason.removeprefix(DISGUISED)}"
            action = "Give them the suffix of their format; until then they are not used."
            yield finding(NAME, DISGUISED, "warning", text, action, places, count)
        elif reason.startswith(UNLISTED):
            files = counted(count, "file is an image", "files are images")
            text = f"{split.name}: {files} of a format that is not read{reason.removeprefix(UNLISTED)}"
            yield finding(NAME, UNLISTED, "warning", text, "Convert them to JPEG or PNG.", places, count)


def _undecodable(split: Split) -> Iterable[Finding]:
    broken = split.pixels.broken
    if broken:
        yield finding(
            NAME,
            "broken image",
            "error",
            f"{split.name}: {counted(len(broken), 'image', 'images')} cannot be decoded, though the header is sound",
            "Copy or save them again: a training takes other images in their place.",
            [Place(split.name, split.index.path(i), what=why) for i, why in broken.items()],
        )


def _flat(split: Split) -> Iterable[Finding]:
    decoded = np.isfinite(split.pixels.brightness)
    flat = np.flatnonzero(decoded & (split.pixels.contrast() < FLAT)).tolist()
    if flat:
        yield finding(
            NAME,
            "empty picture",
            "warning",
            f"{split.name}: {counted(len(flat), 'image')} ({percent(len(flat), len(split))}) of one "
            "plain colour: nothing can be seen there",
            "Remove them, or their labels if they are meant as background.",
            (split.place(i) for i in flat),
            len(flat),
        )
