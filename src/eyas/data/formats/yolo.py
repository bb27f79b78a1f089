"""YOLO text: a label file for each image, text in, flat arrays and a list of problems out (spec core E.2, E.3).

One bad row drops that row only; the image and its other rows stay, and the row is reported with its line number.

A clean file never meets a per-row loop: one regular expression confirms its shape and NumPy converts all numbers at
once. Anything unusual (polygons, trouble, odd spacing) takes the slow path, which accepts the same rows one by one.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eyas.data.files import ABSENT, NO_FILE, FileStat, Listing, list_files, nearest_folder, stat_of, what_is_there
from eyas.data.formats.base import UNREADABLE, LabelProblem, Labels, LabelSource, no_labels
from eyas.data.image_header import ImageHeader

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
NO_IMAGE = "label file without an image"
_TEXT = "not an image (.txt)"  # as `eyas.data.files` calls it
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


class TextRules(NamedTuple):
    """What a description says of label files and lists.

    Attributes:
        ids: the id in the files of each class, rising; None: 0, 1, 2, ...
        keypoints: (points, values per point) of a pose data set; rows of 5 + points * values columns are cut to 5.
        root: where relative lines of a list start that lead nowhere from the list's own folder.
    """

    ids: tuple[int, ...] | None = None
    keypoints: tuple[int, int] | None = None
    root: Path | None = None


NO_RULES = TextRules()


def listed(ids: Sequence[int] | np.ndarray) -> str:
    """Some ids as a text, the first ones of many."""
    return f"ids {', '.join(map(str, ids[:12]))}{', ...' if len(ids) > 12 else ''}"


class YoloText(LabelSource):
    """Images of folders, lists and single files, each with a text file of labels.

    Args:
        places: folders, `.txt` lists and images, see `list_images`.
        num_classes: class ids must lie in [0, num_classes).
        single_cls: accept every class id >= 0 and store it as 0.
        rules: what else the description says; without ids there, files that seem to count from 1 are asked about.
    """

    def __init__(
        self,
        places: Sequence[str | Path],
        *,
        num_classes: int,
        single_cls: bool = False,
        rules: TextRules = NO_RULES,
    ) -> None:
        self.places = list(map(Path, places))
        self.num_classes, self.single_cls, self.rules = num_classes, single_cls, rules
        self._listing = Listing([], Counter(), set())
        self._folders = LabelFolders()

    def __str__(self) -> str:
        return ", ".join(map(str, self.places))

    @property
    def identity(self) -> list[object]:
        return ["yolo", 2, [str(place.absolute()) for place in self.places], self.rules.keypoints, self.rules.ids]

    def images(self) -> list[tuple[str, FileStat]]:
        self._listing = list_files(self.places, self.rules.root)
        return self._listing.images

    def label_stats(self, images: Sequence[str]) -> list[FileStat]:
        self._folders = LabelFolders()
        return [self._folders.stat(image) for image in images]

    def unused(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for (folder, why), count in self._listing.passed_over.items():
            if not (why == _TEXT and folder in self._folders):  # those are labels, or counted as such below
                counts[why] += count
        if all(place.is_dir() for place in self.places):  # a list names a part of a folder; the rest is another's
            counts[NO_IMAGE] = self._folders.without_image([path for path, _ in self._listing.images])
        return +counts

    def watched(self) -> list[str] | None:
        if self._folders.unusual:  # these label files are found by listing their folders alone
            return None
        return sorted(self._listing.watched | set(map(nearest_folder, self._folders)))

    def label_file(self, image: str) -> str:
        return self._folders.unusual.get(image) or label_path(image)

    def labels(self, image: str, stat: FileStat, header: ImageHeader) -> Labels:
        if stat == ABSENT or stat.size == 0:
            return no_labels()
        place = self.label_file(image)
        if stat == NO_FILE:
            return no_labels([LabelProblem(0, UNREADABLE, what_is_there(place))])
        try:
            with open(place, "rb") as file:
                data = file.read()
        except OSError as error:
            return no_labels([LabelProblem(0, UNREADABLE, error.strerror or str(error))])
        return parse_labels(data, num_classes=self.num_classes, single_cls=self.single_cls, rules=self.rules)

    def doubt(self, kept: np.ndarray, unknown: Collection[int]) -> str:
        counts_from_1 = max(unknown, default=-1) == self.num_classes and kept.min(initial=1) >= 1
        if self.rules.ids is not None or not counts_from_1:
            return ""
        return (
            f"The class ids of the labels go up to {self.num_classes} and none is 0, but the data set has classes 0 to "
            f"{self.num_classes - 1}: ids start at 1. Add ids_start=1 (an option, or a key of the data YAML), or "
            "renumber the labels. If they are right as they are, say ids_start=0."
        )

    def explain(self, images: Sequence[str]) -> str:
        if not images:
            return what_folders_hold(self.places)
        near = label_elsewhere(images[0])
        return (
            f"Expected for example {label_path(images[0])} for {images[0]}. Label files stand in a folder `labels` "
            "beside `images`, or beside the images when no folder is named `images`."
            + (f" There is {near}, which is not looked for." if near else "")
        )


def what_folders_hold(places: Sequence[Path]) -> str:
    """What an image folder holds instead of images."""
    for place in places:
        if place.is_dir():
            names = sorted(entry.name for entry in itertools.islice(place.iterdir(), 1000))
            listing = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            return f"The folder holds {listing}." if names else "The folder is empty."
    return "The list is empty."


def label_path(image: str) -> str:
    """Label file of an image: the last `/images/` becomes `/labels/`, the suffix `.txt`.

    Without an `images` folder in the path, the label file stands beside the image.
    """
    stem = os.path.splitext(image)[0]
    marker = f"{os.sep}images{os.sep}"
    before, found, after = stem.rpartition(marker)
    return f"{before}{os.sep}labels{os.sep}{after}.txt" if found else stem + ".txt"


def label_elsewhere(image: str) -> str | None:
    """A file with the name of an image where a label might stand by mistake: another folder, another format."""
    path = Path(image)
    parts = path.parts[1:]
    for depth in range(len(parts) - 1, max(len(parts) - 4, 0), -1):
        base, below = Path(path.anchor, *parts[: depth - 1]), parts[depth:-1]
        folders = sorted(entry for entry in base.iterdir() if entry.is_dir()) if base.is_dir() else []
        for folder in (entry.joinpath(*below) for entry in folders):
            near = [folder / f"{path.stem}{suffix}" for suffix in (".txt", ".TXT", ".xml", ".json")]
            found = next((file for file in near if file.is_file()), None)
            if found:
                return str(found)
    return None


class LabelFolders:
    """Folders of label files, each listed once instead of one failing call per image.

    Attributes:
        unusual: image -> its label file, where the suffix is not written `.txt`.
    """

    def __init__(self) -> None:
        self.unusual: dict[str, str] = {}
        self._folders: dict[str, dict[str, tuple[str, FileStat]]] = {}  # folder -> {name with .txt: (as written, stat)}

    def stat(self, image: str) -> FileStat:
        """Stat of the label file of an image, `ABSENT` where there is none."""
        folder, name = os.path.split(label_path(image))
        written, stat = self._texts(folder).get(name, (name, ABSENT))
        if written != name:
            self.unusual[image] = os.path.join(folder, written)
        return stat

    def __contains__(self, folder: str) -> bool:
        return folder in self._folders

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def without_image(self, images: Sequence[str]) -> int:
        """How many label files in the folders of these images belong to none of them."""
        used = {label_path(image) for image in images}
        files = (os.path.join(folder, name) for folder in self._folders for name in self._texts(folder))
        return sum(file not in used for file in files)

    def _texts(self, folder: str) -> dict[str, tuple[str, FileStat]]:
        if folder not in self._folders:
            self._folders[folder] = _list_texts(folder)
        return self._folders[folder]


def _list_texts(folder: str) -> dict[str, tuple[str, FileStat]]:
    """{name with the suffix .txt: (name as written, stat)}; one that is written `.txt` goes before others.

    Raises:
        ValueError: the folder may not be listed: its images would be background.
    """
    try:
        with os.scandir(folder) as entries:
            texts = [entry for entry in entries if entry.name.lower().endswith(".txt")]
            texts.sort(key=lambda entry: entry.name.endswith(".txt"))
            stats = [stat_of(entry) if entry.is_file() else NO_FILE for entry in texts]
            return {f"{entry.name[:-4]}.txt": (entry.name, stat) for entry, stat in zip(texts, stats, strict=True)}
    except PermissionError:
        raise ValueError(f"The label files in {folder} cannot be listed: permission denied.") from None
    except OSError:
        return {}


def parse_labels(
    data: bytes,
    *,
    num_classes: int,
    single_cls: bool = False,
    rules: TextRules = NO_RULES,
) -> Labels:
    """Read the content of one label file; never raises for any content.

    Args:
        data: the file's bytes. Rows are `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...` (a polygon; its bounds
            are the box); both may stand in one file.
        num_classes: class ids must lie in [0, num_classes).
        single_cls: accept every class id >= 0 and store it as 0.
        rules: what else is known of it.

    Coordinates in [-0.01, 1.01] are accepted unchanged. Order of rows is kept; exact duplicates are dropped.
    """
    if data.startswith(_BOM):
        data = data[len(_BOM) :]
    if not data.strip():
        return no_labels()
    if data.startswith(_WIDE_BOMS):
        return no_labels([LabelProblem(0, UNREADABLE, "the file is UTF-16 text; save it as UTF-8")])
    known = ClassIds(num_classes, None if rules.ids is None else np.array(rules.ids, np.int64), single_cls)
    clean = _parse_clean(data, known)
    return clean if clean is not None else _parse_rows(data, known, rules.keypoints)


class ClassIds(NamedTuple):
    """Which class ids a file may hold: those of `parse_labels`, see there."""

    num_classes: int
    ids: np.ndarray | None
    single_cls: bool

    def __str__(self) -> str:
        return f"classes 0 to {self.num_classes - 1}" if self.ids is None else f"class {listed(self.ids)}"

    def classes(self, found: np.ndarray) -> np.ndarray:
        """(n,) whole numbers >= 0 of a file -> (n,) classes, -1 for those that stand for none."""
        if self.single_cls:
            return np.zeros_like(found)
        if self.ids is None:
            return np.where(found < self.num_classes, found, -1)
        places = np.minimum(np.searchsorted(self.ids, found), len(self.ids) - 1)
        return np.where(self.ids[places] == found, places, -1)


def _parse_clean(data: bytes, known: ClassIds) -> Labels | None:
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
    rows[:, 0] = known.classes(rows[:, 0])
    if rows[:, 0].min() < 0:
        return None
    out = rows.astype(np.float32)
    if out[:, 3:].min() <= 0:  # a width below the smallest float32
        return None
    if len(out) > 1 and len(set(out.view("V20").ravel().tolist())) < len(out):
        return None
    return Labels(out[:, 0].copy(), out[:, 1:].copy(), [])


def _parse_rows(data: bytes, known: ClassIds, keypoints: tuple[int, int] | None) -> Labels:
    kept: dict[bytes, tuple[np.ndarray, int]] = {}  # row bytes -> (row, line)
    problems: list[LabelProblem] = []
    for number, raw in enumerate(data.splitlines(), start=1):
        tokens = raw.decode("utf-8", errors="replace").split()
        if not tokens:
            continue
        row = _parse_row(tokens, known, keypoints)
        if isinstance(row, str):
            kind, _, message = row.partition(": ")
            unknown = int(float(tokens[0])) if kind == CLASS_OUT_OF_RANGE else None
            problems.append(LabelProblem(number, kind, message, unknown))
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


def _parse_row(tokens: list[str], known: ClassIds, keypoints: tuple[int, int] | None) -> np.ndarray | str:
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
    known_as = known.classes(values[:1])[0] if class_id >= 0 else -1
    if known_as < 0:
        return f"{CLASS_OUT_OF_RANGE}: class {tokens[0][:20]}; the data set has {known}"
    box = _box(values[1:])
    if isinstance(box, str):
        return box
    return np.array([known_as, *box], dtype=np.float32)


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
