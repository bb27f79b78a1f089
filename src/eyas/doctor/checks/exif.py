"""Images that a camera has marked as lying on their side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eyas.doctor.case import Case
from eyas.doctor.finding import Finding, counted, finding, percent

NAME = "exif"
_TURNED = {
    2: "mirrored", 3: "turned by 180°", 4: "upside down, mirrored", 5: "on its side, mirrored",
    6: "turned by 90°", 7: "on its side, mirrored", 8: "turned by 270°",
}  # fmt: skip


def look(case: Case) -> Iterator[Finding]:
    """Name images that are shown otherwise than they are stored; labels may have been drawn on either."""
    for split in case.splits.values():
        orientations = split.index.orientations
        turned = np.flatnonzero(orientations > 1).tolist()
        if turned:
            yield finding(
                NAME,
                "EXIF rotation",
                "note",
                f"{split.name}: {counted(len(turned), 'image')} ({percent(len(turned), len(split))}) "
                "turned by EXIF data. Eyas turns them as a viewer does, so labels must fit the turned picture",
                "See in the pictures whether the boxes fit; if not, the labels were drawn on the stored one.",
                (split.place(i, what=_TURNED[int(orientations[i])]) for i in turned),
                len(turned),
            )
