"""Label formats: one small file for each, and how a split of a data description finds its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from eyas.data.formats.base import LabelProblem, Labels, LabelSource
from eyas.data.formats.yolo import YoloText

__all__ = ["FORMATS", "LabelProblem", "LabelSource", "Labels", "Opener", "YoloText", "claim"]

Opener = Callable[[object, Path, "Mapping[int, str] | None"], "LabelSource | None"]
"""(what a description says of a split, the data set's root, its class names) -> the source, or None: not this format.

What is said is a path, a list of paths or a mapping, as it stands in the description; relative paths start at the root.
The names are None when the description has none; then the source's own are taken. A file that is not there is None
too: the data set may have to be downloaded first. Raises ValueError for one that is this format and cannot be used.
"""

FORMATS: dict[str, Opener] = {}
"""{name: opener} of the formats besides YOLO text, which takes what no other claims. An entry that the user's script
makes is known in all processes of a training."""


def claim(entry: object, root: Path, names: Mapping[int, str] | None) -> LabelSource | None:
    """Return the source of a split from the one format that knows it, or None.

    Raises:
        ValueError: two formats claim it.
    """
    if isinstance(entry, LabelSource):
        return entry
    opened = {name: source for name, opener in FORMATS.items() if (source := opener(entry, root, names)) is not None}
    if len(opened) > 1:
        raise ValueError(f"{entry} is claimed by several label formats: {', '.join(opened)}.")
    return next(iter(opened.values()), None)
