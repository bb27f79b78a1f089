"""Label formats: one small file for each, and how a split of a data description finds its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from eyas.data.formats.base import LabelProblem, Labels, LabelSource, Numbers
from eyas.data.formats.coco import open_coco
from eyas.data.formats.joined import Joined
from eyas.data.formats.ndjson import open_ndjson
from eyas.data.formats.voc import open_voc
from eyas.data.formats.yolo import YoloText

__all__ = ["FORMATS", "STOCK", "LabelProblem", "LabelSource", "Labels", "Numbers", "Opener", "YoloText", "claim"]

Opener = Callable[[object, Path, "Mapping[int, str] | None"], "LabelSource | None"]
"""(what a description says of a split, the data set's root, its class names) -> the source, or None: not this format.

What is said is a path, a list of paths or a mapping, as it stands in the description; relative paths start at the root.
The names are None when the description has none; then the source's own are taken. A file that is not there is None
too: the data set may have to be downloaded first. Raises ValueError for one that is this format and cannot be used.
"""

STOCK: dict[str, Opener] = {"coco": open_coco, "ndjson": open_ndjson, "voc": open_voc}
"""{name: opener} of the formats that come with Eyas, besides YOLO text, which takes what no other claims."""

FORMATS: dict[str, Opener] = {}
"""{name: opener} of formats that come from outside, which are asked first. An entry that the user's script makes is
known in all processes of a training."""


def claim(entry: object, root: Path, names: Mapping[int, str] | None) -> LabelSource | None:
    """Return the source of a split from the one format that knows it, or None. Of a list, each part has its own.

    Raises:
        ValueError: two formats claim it, or only a part of a list is claimed.
    """
    if isinstance(entry, LabelSource):
        return entry
    source = _claimed(entry, root, names)
    if source is not None or not isinstance(entry, list | tuple):
        return source
    parts = [_claimed(part, root, names) for part in entry]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        if found and all(
            os.path.exists(root / str(part)) for part, own in zip(entry, parts, strict=True) if own is None
        ):
            raise ValueError(f"{entry} mixes annotation files ({found[0]}) with images that have files of their own.")
        return None
    return Joined(found) if found else None


def _claimed(entry: object, root: Path, names: Mapping[int, str] | None) -> LabelSource | None:
    for formats in (FORMATS, STOCK):
        opened = {
            name: source for name, opener in formats.items() if (source := opener(entry, root, names)) is not None
        }
        if len(opened) > 1:
            raise ValueError(f"{entry} is claimed by several label formats: {', '.join(opened)}.")
        if opened:
            return next(iter(opened.values()))
    return None
