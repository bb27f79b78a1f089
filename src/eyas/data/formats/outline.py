"""The box around an outline of COCO: polygons, and runs of pixels (RLE), packed or not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Bounds = tuple[float, float, float, float]
"""left, top, width, height in px"""
_MOST_PIXELS = 1 << 40


def bounds(outline: object) -> Bounds | None:
    """Return the box around what a COCO file has as `segmentation`; None for what is none, or holds nothing."""
    if isinstance(outline, dict):
        return _bounds_of_runs(outline.get("counts"), outline.get("size"))
    return _bounds_of_polygons(outline) if isinstance(outline, list) else None


def _bounds_of_polygons(polygons: list[object]) -> Bounds | None:
    if polygons and all(map(_is_number, polygons)):  # one polygon, without the list around it
        polygons = [polygons]
    points: list[float] = []
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) % 2 or not all(map(_is_number, polygon)):
            return None
        points += polygon
    if len(points) < 6:
        return None
    try:
        pairs = np.array(points, np.float64).reshape(-1, 2)
    except OverflowError:
        return None
    (left, top), (right, bottom) = pairs.min(0), pairs.max(0)
    return float(left), float(top), float(right - left), float(bottom - top)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bounds_of_runs(counts: object, size: object) -> Bounds | None:
    """Runs go down the columns, one after another, outside and inside by turns, beginning outside."""
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        return None
    if isinstance(counts, str):
        runs = list(_unpacked(counts))
    elif isinstance(counts, list) and all(isinstance(run, int) for run in counts):
        runs = counts
    else:
        return None
    height, width = size
    if not runs or min(runs) < 0 or sum(runs) > height * width or height * width > _MOST_PIXELS:
        return None
    ends = np.cumsum(np.array(runs, np.int64))
    starts, ends = ends[0:-1:2], ends[1::2]  # of the runs inside
    starts, ends = starts[starts < ends], ends[starts < ends] - 1
    if not len(starts):
        return None
    left, right = int(starts[0]) // height, int(ends[-1]) // height
    whole = (starts // height != ends // height).any()  # a run that goes on in the next column touches both edges
    top = 0 if whole else int((starts % height).min())
    bottom = height - 1 if whole else int((ends % height).max())
    return float(left), float(top), float(right - left + 1), float(bottom - top + 1)


def _unpacked(text: str) -> Iterator[int]:
    """Runs of a packed text: 5 bits a character from the lowest on, a sixth says that more follow, a sign at the end;
    from the fourth run on, what is packed is the difference to the run before the last.

    What is no such text gives a negative run.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            yield -1
            return
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        yield runs[-1]
        value = shift = 0
    if shift:
        yield -1
