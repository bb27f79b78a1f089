"""YOLO label files: text in, flat arrays and a list of problems out (spec core E.3).

One bad row drops that row only; the image and its other rows stay, and the row is reported with its line number.

A clean file never meets a per-row loop: one regular expression confirms its shape and NumPy converts all numbers at
once. Anything unusual (polygons, trouble, odd spacing) takes the slow path, which accepts the same rows one by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Tolerance of spec E.3: annotation tools round, so a coordinate may leave [0, 1] by up to 1 %.
LOW, HIGH = -0.01, 1.01

BAD_COLUMNS = "bad column count"
NOT_A_NUMBER = "not a number"
CLASS_NOT_INTEGER = "class is not an integer"
CLASS_OUT_OF_RANGE = "class out of range"
OUT_OF_RANGE = "coordinate out of range"
NEGATIVE_SIZE = "negative size"
ZERO_SIZE = "zero size"
DUPLICATE = "duplicate row"
UNREADABLE = "unreadable label file"
LABEL_KINDS = (
    BAD_COLUMNS,
    NOT_A_NUMBER,
    CLASS_NOT_INTEGER,
    CLASS_OUT_OF_RANGE,
    OUT_OF_RANGE,
    NEGATIVE_SIZE,
    ZERO_SIZE,
    DUPLICATE,
    UNREADABLE,
)

_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")
# Rows of one class and four numbers, or blank. All quantifiers are possessive: the match is linear in the file's size.
_CLEAN_FILE = re.compile(rb"(?:[ \t]*+(?:\d++(?:\.0*+)?+(?:[ \t]++[-+.0-9eE]++){4}+[ \t]*+)?+\r?+\n)*+")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


class LabelProblem(NamedTuple):
    """One dropped row: 1-based line (0 = the whole file), kind (one of `LABEL_KINDS`) and a sentence for people."""

    line: int
    kind: str
    message: str


class Labels(NamedTuple):
    """Rows of one file: cls (n,) float32 class ids, boxes (n,4) float32 cxcywh normalised by the image size."""

    cls: np.ndarray
    boxes: np.ndarray
    problems: list[LabelProblem]


def no_labels(problems: Sequence[LabelProblem] = ()) -> Labels:
    """The labels of a background image."""
    return Labels(np.zeros(0, np.float32), np.zeros((0, 4), np.float32), list(problems))


def parse_labels(
    data: bytes, *, num_classes: int, single_cls: bool = False, keypoints: tuple[int, int] | None = None
) -> Labels:
    """Read the content of one label file; never raises for any content.

    Args:
        data: the file's bytes. Rows are `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...` (a polygon; its bounds
            are the box); both may stand in one file.
        num_classes: class ids must lie in [0, num_classes).
        single_cls: accept every class id >= 0 and store it as 0.
        keypoints: (points, values per point) of a pose data set; rows of 5 + points * values columns are cut to 5.

    Coordinates in [-0.01, 1.01] are accepted unchanged. Order of rows is kept; exact duplicates are dropped.
    """
    if data.startswith(_BOM):
        data = data[len(_BOM) :]
    if not data.strip():
        return no_labels()
    if data.startswith(_WIDE_BOMS):
        return no_labels([LabelProblem(0, UNREADABLE, "the file is UTF-16 text; save it as UTF-8")])
    clean = _parse_clean(data, num_classes, single_cls)
    return clean if clean is not None else _parse_rows(data, num_classes, single_cls, keypoints)


def _parse_clean(data: bytes, num_classes: int, single_cls: bool) -> Labels | None:
    """All rows at once, or None when any row needs a closer look."""
    text = data if data.endswith(b"\n") else data + b"\n"
    if not _CLEAN_FILE.fullmatch(text):
        return None
    try:
        rows = np.array(text.split(), dtype=np.float64).reshape(-1, 5)
    except ValueError:  # a token such as "1.2.3" or "1e"
        return None
    coords = rows[:, 1:]
    if coords.min() < LOW or coords.max() > HIGH or coords[:, 2:].min() <= 0:
        return None
    if rows[:, 0].max() >= num_classes and not single_cls:
        return None
    if single_cls:
        rows[:, 0] = 0
    out = rows.astype(np.float32)
    if out[:, 3:].min() <= 0:  # a width below the smallest float32
        return None
    if len(out) > 1 and len(set(out.view("V20").ravel().tolist())) < len(out):
        return None
    return Labels(out[:, 0].copy(), out[:, 1:].copy(), [])


def _parse_rows(data: bytes, num_classes: int, single_cls: bool, keypoints: tuple[int, int] | None) -> Labels:
    kept: dict[bytes, tuple[np.ndarray, int]] = {}  # row bytes -> (row, line)
    problems: list[LabelProblem] = []
    for number, raw in enumerate(data.splitlines(), start=1):
        tokens = raw.decode("utf-8", errors="replace").split()
        if not tokens:
            continue
        row = _parse_row(tokens, num_classes, single_cls, keypoints)
        if isinstance(row, str):
            kind, _, message = row.partition(": ")
            problems.append(LabelProblem(number, kind, message))
            continue
        key = row.tobytes()
        if key in kept:
            problems.append(LabelProblem(number, DUPLICATE, f"same object as line {kept[key][1]}"))
        else:
            kept[key] = (row, number)
    if not kept:
        return no_labels(problems)
    rows = np.stack([row for row, _ in kept.values()])
    return Labels(rows[:, 0].copy(), rows[:, 1:].copy(), problems)


def _parse_row(
    tokens: list[str], num_classes: int, single_cls: bool, keypoints: tuple[int, int] | None
) -> np.ndarray | str:
    """A row as float32 (5,) or "kind: message"."""
    if keypoints and len(tokens) == 5 + keypoints[0] * keypoints[1]:
        tokens = tokens[:5]
    columns = len(tokens)
    if columns != 5 and (columns < 7 or columns % 2 == 0):
        commas = "; separate values by spaces, not commas" if "," in tokens[0] else ""
        return f"{BAD_COLUMNS}: {columns} values; a box has 5, a polygon 7, 9, 11, ...{commas}"
    for position, token in enumerate(tokens, start=1):
        if not _NUMBER.fullmatch(token):
            return f"{NOT_A_NUMBER}: column {position} is {token[:20]!r}"
    values = np.array([float(token) for token in tokens])
    class_id = values[0]
    if class_id != np.floor(class_id) or not np.isfinite(class_id):
        return f"{CLASS_NOT_INTEGER}: class {tokens[0][:20]}"
    if class_id < 0 or (class_id >= num_classes and not single_cls):
        return f"{CLASS_OUT_OF_RANGE}: class {tokens[0][:20]}; the data set has classes 0 to {num_classes - 1}"
    if single_cls:
        class_id = 0.0
    box = _box(values[1:])
    if isinstance(box, str):
        return box
    return np.array([class_id, *box], dtype=np.float32)


def _box(coords: np.ndarray) -> np.ndarray | str:
    """cxcywh float64 (4,) of a box or polygon, or "kind: message"."""
    is_polygon = len(coords) > 4
    if not is_polygon and min(coords[2], coords[3]) < 0:
        return f"{NEGATIVE_SIZE}: width {coords[2]:g}, height {coords[3]:g}"
    wrong = coords[(coords < LOW) | (coords > HIGH)]
    if len(wrong):
        hint = "; values look like pixels, divide by the image size" if wrong.max() > 2 else ""
        return f"{OUT_OF_RANGE}: {wrong[0]:g}; coordinates go from 0 to 1{hint}"
    if is_polygon:
        points = coords.reshape(-1, 2)
        low, high = points.min(0), points.max(0)
        coords = np.concatenate([(low + high) / 2, high - low])
    # Spec E.3 accepts zero sizes; no assigner can match such a box and it counts as a miss forever, so it is reported.
    if np.float32(coords[2]) <= 0 or np.float32(coords[3]) <= 0:
        return f"{ZERO_SIZE}: width {coords[2]:g}, height {coords[3]:g}; such a box cannot be learnt"
    return coords
