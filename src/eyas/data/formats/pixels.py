"""Boxes in px, as most formats write them, to labels and back.

A label is a float32 share of the image; a file has decimal numbers of px. Both ways go through float64, and what is
written has as few decimals as give the same float32 again, so that whole px stay whole px.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eyas.data.formats.base import Ignored, LabelProblem, Labels
from eyas.data.formats.yolo import DUPLICATE, HIGH, LOW, NEGATIVE_SIZE, NOT_A_NUMBER, OUT_OF_RANGE, ZERO_SIZE
from eyas.data.image_header import ImageHeader
from eyas.data.report import kept_kind, lost_kind

SIZE_DIFFERS = lost_kind("image size differs from the annotations'")
SIZE_FITTED = kept_kind("annotated at another image size", "warning")
_MOST_DECIMALS = 12


class PixelRows(NamedTuple):
    """Annotations of one image, n of them, with known classes.

    Attributes:
        cls: (n,) class ids; `ANY_CLASS` only where ignored.
        boxes: (n, 4) float64 left, top, width, height in px of the annotated image.
        ignored: (n,) bool, areas to ignore.
        lines: (n,) lines in the file, 0 where it has none to speak of.
        called: what to call each row in a message.
    """

    cls: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray
    lines: Sequence[int]
    called: Sequence[str]


class _Frame(NamedTuple):
    """The image that was annotated: its size in px, and by which EXIF orientation it has yet to be turned (1: none)."""

    height: int
    width: int
    turn: int = 1


def to_labels(rows: PixelRows, told: tuple[int, int], header: ImageHeader) -> Labels:
    """Return labels of an image; rows that cannot be used are told.

    Args:
        rows: its annotations.
        told: height and width in px that the annotations give, 0 where they do not.
        header: of the file.

    Where the two sizes differ, the boxes follow the image: one that was scaled scales them, one that was annotated
    before its EXIF orientation turns them. Where neither explains it, no box can be trusted, and all are dropped.
    """
    frame, problem = _annotated(told, header)
    problems = [problem] if problem and len(rows.cls) else []
    if frame is None:
        rows = PixelRows(rows.cls[:0], rows.boxes[:0], rows.ignored[:0], [], [])
        frame = _Frame(*header[:2])
    with np.errstate(over="ignore", invalid="ignore"):  # told below, as no number or out of range
        shares = turned(normalised(rows.boxes, frame.height, frame.width), frame.turn)
        table = np.column_stack([rows.cls, shares]).astype(np.float32).reshape(-1, 5)
    keep = np.ones(len(table), bool)
    seen: dict[bytes, str] = {}
    for i in range(len(table)) if _any_trouble(rows, shares, table) else ():
        kind, message = _trouble(rows.boxes[i], shares[i], table[i, 3:])
        key = table[i].tobytes()
        if not kind and not rows.ignored[i]:
            if key in seen:
                kind, message = DUPLICATE, f"same object as {seen[key]}"
            seen.setdefault(key, rows.called[i])
        if kind:
            keep[i] = False
            problems.append(LabelProblem(rows.lines[i], kind, f"{rows.called[i]}: {message}"))
    objects, ignored = table[keep & ~rows.ignored], table[keep & rows.ignored]
    return Labels(*_columns(objects), problems, Ignored(*_columns(ignored)))


def clean_labels(
    cls: np.ndarray, boxes: np.ndarray, ignored: np.ndarray, counts: Sequence[int], sizes: np.ndarray
) -> list[Labels | None]:
    """Return labels of several images at once, in less time than one by one.

    Args:
        cls, boxes, ignored: as in `PixelRows`, of all images, image by image; the class may be NaN.
        counts: (N) annotations of each image.
        sizes: (N, 2) height and width of each, of which the annotations are.

    Returns:
        (N) labels; None for an image of which a row needs a closer look.
    """
    heights, widths = np.repeat(sizes, counts, axis=0).T
    with np.errstate(over="ignore", invalid="ignore"):
        shares = normalised(boxes, heights, widths)
        table = np.column_stack([cls, shares]).astype(np.float32).reshape(-1, 5)
        sound = ((shares >= LOW) & (shares <= HIGH)).all(1) & (table[:, 3:] > 0).all(1) & ~np.isnan(cls)
    keys, usable, any_ignored = table.view("V20").ravel().tolist(), sound.tolist(), ignored.tolist()
    columns = _columns(table)
    found: list[Labels | None] = []
    end = 0
    for count in counts:
        start, end = end, end + count
        if not all(usable[start:end]) or len(set(keys[start:end])) < count:
            found.append(None)
        elif any(any_ignored[start:end]):
            rows, areas = table[start:end], ignored[start:end]
            found.append(Labels(*_columns(rows[~areas]), [], Ignored(*_columns(rows[areas]))))
        else:
            found.append(Labels(columns[0][start:end], columns[1][start:end], []))
    return found


def _columns(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return table[:, 0].copy(), table[:, 1:].copy()


def normalised(boxes: np.ndarray, height: int | np.ndarray, width: int | np.ndarray) -> np.ndarray:
    """(n, 4) float64 left, top, width, height in px -> (n, 4) float64 centre and size in shares of the image, or each
    of its own of n heights and widths."""
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    return np.hstack([centres, boxes[:, 2:]]) / np.stack([width, height, width, height], axis=-1)


def to_pixels(boxes: np.ndarray, height: int, width: int, *, corners: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return labels in px.

    Args:
        boxes: (n, 4) float32 centre and size in shares of the image.
        height, width: of the image in px.
        corners: whether right and bottom are wanted instead of width and height.

    Returns:
        (n, 4) float64 left, top and width, height (or right, bottom), in as few decimals as give the same labels
        again; (n,) bool, False where no float64 does: a centre that lies nearer to the edge of the image, or a size
        smaller, than about a millionth of what it is beside.
    """
    sides = np.array([width, height], np.float64)
    centres, sizes = boxes[:, :2].astype(np.float64) * sides, boxes[:, 2:].astype(np.float64) * sides
    starts, ends = centres - sizes / 2, (centres + sizes / 2 if corners else sizes)
    found_starts, found_ends = starts + 0.0, ends + 0.0
    pending = np.ones(starts.shape, bool)
    for decimals in range(_MOST_DECIMALS + 1):
        start, end = np.round(starts, decimals) + 0.0, np.round(ends, decimals) + 0.0
        fits = pending & _reads_back(start, end, boxes, sides, corners)
        found_starts[fits], found_ends[fits] = start[fits], end[fits]
        pending &= ~fits
        if not pending.any():
            break
    exact = ~pending | _reads_back(starts, ends, boxes, sides, corners)
    return np.hstack([found_starts, found_ends]), exact.all(1)


def _reads_back(
    starts: np.ndarray, ends: np.ndarray, boxes: np.ndarray, sides: np.ndarray, corners: bool
) -> np.ndarray:
    """(n, 2) whether both numbers of an axis, read as `normalised` does, are those of the label."""
    sizes = ends - starts if corners else ends
    centres = ((starts + sizes / 2) / sides).astype(np.float32)
    return (centres == boxes[:, :2]) & ((sizes / sides).astype(np.float32) == boxes[:, 2:])


def turned(shares: np.ndarray, orientation: int) -> np.ndarray:
    """(n, 4) boxes of a picture as it is stored -> of the picture as its EXIF orientation (5 to 8; 1: as it is) shows
    it."""
    if orientation == 1:
        return shares
    x, y, width, height = shares.T
    centre = {5: (y, x), 6: (1 - y, x), 7: (1 - y, 1 - x), 8: (y, 1 - x)}[orientation]
    return np.stack([*centre, height, width], axis=1)


def _annotated(told: tuple[int, int], header: ImageHeader) -> tuple[_Frame | None, LabelProblem | None]:
    """The image that was annotated, None if it cannot have been this one; and what is to be said of that."""
    height, width = told
    shown = _Frame(header.height, header.width)
    if min(told) <= 0 or told == (header.height, header.width):
        return shown, None
    sizes = f"the annotations are of {width} x {height} px, the image has {header.width} x {header.height}"
    if told == (header.width, header.height):
        if header.orientation >= 5:
            why = "boxes are turned as the EXIF orientation turns the image"
            return _Frame(height, width, header.orientation), LabelProblem(0, SIZE_FITTED, f"{sizes}: {why}")
        why = "taken as width and height exchanged; boxes are left as they are"
        return shown, LabelProblem(0, SIZE_FITTED, f"{sizes}: {why}")
    # One px of rounding on the smaller of the two, either way.
    slack = max(width, height, header.width, header.height)
    if abs(width * header.height - height * header.width) <= slack:
        return _Frame(height, width), LabelProblem(0, SIZE_FITTED, f"{sizes}: boxes are scaled as the image is")
    return None, LabelProblem(0, SIZE_DIFFERS, f"{sizes}, of another shape: its boxes are dropped")


def _any_trouble(rows: PixelRows, shares: np.ndarray, table: np.ndarray) -> bool:
    """Whether any row needs a closer look."""
    inside = ((shares >= LOW) & (shares <= HIGH)).all()
    sound = (table[:, 3:] > 0).all()
    return not (inside and sound and len({row.tobytes() for row in table[~rows.ignored]}) == (~rows.ignored).sum())


def _trouble(box: np.ndarray, shares: np.ndarray, size: np.ndarray) -> tuple[str, str]:
    """What is wrong with a box, as (kind, message); empty where nothing is. The order is that of YOLO text."""
    sizes = f"width {box[2]:g}, height {box[3]:g} px"
    if not np.isfinite(box).all():
        return NOT_A_NUMBER, f"box {', '.join(f'{value:g}' for value in box)}"
    if min(box[2:]) < 0:
        return NEGATIVE_SIZE, sizes
    if ((shares < LOW) | (shares > HIGH)).any():
        return OUT_OF_RANGE, f"box {', '.join(f'{value:g}' for value in box)} lies outside the image"
    if min(size) <= 0:
        return ZERO_SIZE, f"{sizes}; such a box cannot be learnt"
    return "", ""
