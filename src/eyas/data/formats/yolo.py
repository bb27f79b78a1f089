"""YOLO text: a label file for each image, text in, flat arrays and a list of problems out (spec core E.2, E.3).

Areas to ignore, of which YOLO text knows nothing, may stand in files of the same form in a folder `ignored` beside
`images` and `labels`, which other tools pass over; the class -1 stands for every class.

One bad row drops that row only; the image and its other rows stay, and the row is reported with its line number.

A clean file never meets a per-row loop: one regular expression confirms its shape and NumPy converts all numbers at
once. Anything unusual (polygons, trouble, odd spacing) takes the slow path, which accepts the same rows one by one.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from eyas.data.files import (
    ABSENT,
    NO_FILE,
    FileStat,
    Listing,
    Some,
    counts_of,
    list_files,
    names_of,
    nearest_folder,
    read_whole,
    stat_of,
    without_suffix,
)
from eyas.data.formats.base import ANY_CLASS, UNREADABLE, Ignored, LabelProblem, Labels, LabelSource, no_labels
from eyas.data.image_header import ImageHeader
from eyas.data.odd_names import composed
from eyas.data.report import Problem, kept_kind, lost_kind
from eyas.files import what_is_there

# Tolerance of spec E.3: annotation tools round, so a coordinate may leave [0, 1] by up to 1 %.
LOW, HIGH = -0.01, 1.01

BAD_COLUMNS = lost_kind("bad column count")
NOT_A_NUMBER = lost_kind("not a number")
CLASS_NOT_INTEGER = lost_kind("class is not an integer")
CLASS_OUT_OF_RANGE = lost_kind("class out of range")
OUT_OF_RANGE = lost_kind("coordinate out of range")
NEGATIVE_SIZE = lost_kind("negative size")
ZERO_SIZE = lost_kind("zero size")
DUPLICATE = lost_kind("duplicate row", "warning")
OUTLINE = kept_kind("outlines taken as boxes")  # ; one of each file
_CLASSES = "classes.txt"
NO_IMAGE = "label file without an image"
SHARED = kept_kind("label file of several images", "warning")
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
# Rows of one class and four numbers, or blank. What one part may match begins where no other can, so that the match is
# linear in the file's size; possessive quantifiers would say so, and match too much in Python before 3.11.5.
_CLEAN_FILE = re.compile(
    rb"(?:[ \t]*(?:\d+(?:\.0*)?(?:[ \t]+[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?){4}[ \t]*)?\r?\n)*"
)
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

    stateless = True

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
        self._listing = Listing([], {}, set(), {})
        self._unusual: dict[str, str] = {}
        self._ignored: dict[str, str] = {}
        self._folders: set[str] = set()
        self._unlisted: dict[str, str] = {}
        self._shared: list[Problem] = []
        self._without_image = Some()

    def __str__(self) -> str:
        return ", ".join(map(str, self.places))

    @property
    def identity(self) -> list[object]:
        return ["yolo", 3, [str(place.absolute()) for place in self.places], self.rules.keypoints, self.rules.ids]

    def images(self) -> list[tuple[str, FileStat]]:
        self._listing = list_files(self.places, self.rules.root)
        return self._listing.images

    def label_stats(self, images: Sequence[str]) -> list[FileStat]:
        folders = LabelFolders()
        stats = [folders.stat(image) for image in images]
        self._unusual, self._folders, self._unlisted = folders.unusual, set(folders), folders.unlisted()
        self._ignored, self._shared = {}, _shared_labels(images, stats)
        if any(os.path.isdir(_beside_labels(folder)) for folder in folders):  # as hardly ever
            self._look_for_ignored(images, stats)
        if all(place.is_dir() for place in self.places):  # a list names a part of a folder; the rest is another's
            asked = set(images) if len(images) < len(self._listing.images) else None
            others = () if asked is None else (path for path, _ in self._listing.images if path not in asked)
            self._without_image = folders.without_image(others)
        self._listing = self._listing._replace(images=[])  # a million take much room, and have been asked about
        return stats

    def _look_for_ignored(self, images: Sequence[str], stats: list[FileStat]) -> None:
        """Find files of areas to ignore; the stat of an image's labels then covers both of its files."""
        areas = LabelFolders(IGNORED)
        for i, image in enumerate(images):
            stat = areas.stat(image)
            if stat.size not in (ABSENT.size, 0):
                self._ignored[image] = areas.unusual.get(image) or label_path(image, IGNORED)
                stats[i] = _both(stats[i], stat)

    def unused(self) -> Counter[str]:
        return +counts_of(self._others())

    def unused_names(self) -> dict[str, list[str]]:
        return {why: names for why, names in names_of(self._others()).items() if names}

    def _others(self) -> dict[str, Some]:
        """What lies among images and labels and is neither, by the reason."""
        found: dict[str, Some] = {}
        for (folder, why), some in self._listing.passed_over.items():
            if not (why == _TEXT and folder in self._folders):  # those are labels, or counted as such below
                found[why] = found.get(why, Some()) + some
        return found | {NO_IMAGE: self._without_image}

    def problems(self) -> list[Problem]:
        return [*self._shared, *(problem for place, odd in self._listing.odd.items() for problem in odd.about(place))]

    def watched(self) -> list[str] | None:
        # Found by listing their folders alone; two files of one image; folders that may open without a sign.
        if self._unusual or self._ignored or self._unlisted:
            return None
        areas = {nearest_folder(f"{folder}{os.sep}") for folder in map(_beside_labels, self._folders)}
        return sorted(self._listing.watched | set(map(nearest_folder, self._folders)) | areas)

    def label_file(self, image: str) -> str:
        return self._unusual.get(image) or label_path(image)

    def labels(self, image: str, stat: FileStat, header: ImageHeader) -> Labels:
        return self.labels_of([image], [stat], [header])[0]

    def labels_of(
        self, images: Sequence[str], stats: Sequence[FileStat], headers: Sequence[ImageHeader]
    ) -> list[Labels]:
        read = [self._read(image, stat) for image, stat in zip(images, stats, strict=True)]
        parsed = parse_files(
            [data for data, _ in read], num_classes=self.num_classes, single_cls=self.single_cls, rules=self.rules
        )
        parsed = [labels._replace(problems=why) if why else labels for labels, (_, why) in zip(parsed, read)]
        return [self._with_ignored(image, labels) for image, labels in zip(images, parsed, strict=True)]

    def _with_ignored(self, image: str, labels: Labels) -> Labels:
        """Labels with the areas to ignore of an image that has some."""
        place = self._ignored.get(image)
        if place is None:
            return labels
        try:
            data = read_whole(place)
        except OSError as error:
            unread = LabelProblem(0, UNREADABLE, f"{place}: {error.strerror or error}")
            return labels._replace(problems=[*labels.problems, unread])
        ids = None if self.rules.ids is None else np.array(self.rules.ids, np.int64)
        ignored, problems = parse_ignored(data, ClassIds(self.num_classes, ids, self.single_cls))
        told = [problem._replace(message=f"{place}: {problem.message}") for problem in problems]
        return labels._replace(ignored=ignored, problems=[*labels.problems, *told])

    def _read(self, image: str, stat: FileStat) -> tuple[bytes, list[LabelProblem]]:
        """The content of a label file, or none and why."""
        if stat == ABSENT or stat.size == 0:
            return b"", []
        place = self.label_file(image)
        if image in self._ignored and not os.path.exists(place):
            return b"", []
        if stat == NO_FILE:
            why = self._unlisted.get(os.path.dirname(place)) or what_is_there(place)
            return b"", [LabelProblem(0, UNREADABLE, why)]
        try:
            return read_whole(place), []
        except OSError as error:
            return b"", [LabelProblem(0, UNREADABLE, error.strerror or str(error))]

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


IGNORED = "ignored"


def _both(label: FileStat, ignored: FileStat) -> FileStat:
    """One stat that changes with each of two files of an image."""
    return FileStat(max(label.size, 0) + ignored.size, max(label.mtime_ns, ignored.mtime_ns))


def _beside_labels(folder: str) -> str:
    """The folder of areas to ignore that goes with a folder of labels."""
    before, found, after = f"{folder}{os.sep}".rpartition(f"{os.sep}labels{os.sep}")
    return f"{before}{os.sep}{IGNORED}{os.sep}{after}".rstrip(os.sep) if found else folder


def label_path(image: str, kind: str = "labels") -> str:
    """Label file of an image: the last `/images/` becomes `/labels/`, the suffix `.txt`.

    Without an `images` folder in the path, the label file stands beside the image. With another kind, the path is that
    of a file of areas to ignore, and goes to `/ignored/`.
    """
    stem = without_suffix(image)
    marker = f"{os.sep}images{os.sep}"
    before, found, after = stem.rpartition(marker)
    if not found:
        return f"{stem}.txt" if kind == "labels" else f"{stem}.{kind}"
    return f"{before}{os.sep}{kind}{os.sep}{after}.txt"


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
        unusual: image -> its label file, where the suffix is not written `.txt`, or the name in another Unicode form.
    """

    def __init__(self, kind: str = "labels") -> None:
        self.kind = kind
        self.unusual: dict[str, str] = {}
        self._folders: dict[str, Texts] = {}
        self._used: defaultdict[str, set[str]] = defaultdict(set)  # folder -> names of `Texts` that images have

    def stat(self, image: str) -> FileStat:
        """Stat of the label file of an image, `ABSENT` where there is none.

        `NO_FILE` where there may be one and nobody can read it: an image whose labels are unknown is no background.
        """
        folder, name = self._place(image)
        if folder not in self._folders:
            self._folders[folder] = _list_texts(folder)
        texts = self._folders[folder]
        if texts.trouble:
            return NO_FILE
        key = texts.key(name)
        self._used[folder].add(key)
        if key in texts.unusual or key != name:
            self.unusual[image] = os.path.join(folder, texts.unusual.get(key, key))
        return texts.stats.get(key, ABSENT)

    def _place(self, image: str) -> tuple[str, str]:
        """Folder and name of the label file of an image, as it is usually written."""
        folder, _, name = label_path(image, self.kind).rpartition(os.sep)
        return folder or os.sep, name

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def unlisted(self) -> dict[str, str]:
        """{folder: why} of the folders that cannot be listed."""
        return {folder: texts.trouble for folder, texts in self._folders.items() if texts.trouble}

    def without_image(self, others: Iterable[str]) -> Some:
        """Which label files in these folders belong neither to an image that was asked about nor to one of some others.

        labelImg writes the names of the classes into `classes.txt` beside the labels.
        """
        for folder, name in map(self._place, others):
            if folder in self._folders:
                self._used[folder].add(self._folders[folder].key(name))
        left = Some()
        for folder, texts in self._folders.items():
            for name in texts.stats:
                if name not in self._used[folder] and name != _CLASSES:
                    left.add(os.path.join(folder, texts.unusual.get(name, name)))
        return left


class Texts(NamedTuple):
    """Label files of a folder.

    Attributes:
        stats: {name with the suffix .txt: stat}.
        unusual: {name with the suffix .txt: as written}, where the suffix is not written `.txt`.
        trouble: why the folder cannot be listed, though something is there; else "".
        composed: {name in composed form: name with the suffix .txt} of the names that are not ASCII.
    """

    stats: dict[str, FileStat]
    unusual: dict[str, str]
    trouble: str = ""
    composed: Mapping[str, str] = MappingProxyType({})

    def key(self, name: str) -> str:
        """The name under which a label file is listed: as it is, or in another Unicode form."""
        return name if name in self.stats or name.isascii() else self.composed.get(composed(name), name)


def _list_texts(folder: str) -> Texts:
    """List a folder; of two names, one that is written `.txt` goes before others."""
    stats: dict[str, FileStat] = {}
    written: dict[str, str] = {}
    try:
        with os.scandir(folder) as entries:
            texts = [entry for entry in entries if entry.name.lower().endswith(".txt")]
            for entry in sorted(texts, key=lambda entry: entry.name.endswith(".txt")):
                name = f"{entry.name[:-4]}.txt"
                stats[name], written[name] = stat_of(entry), entry.name
    except OSError as error:
        return Texts({}, {}, _trouble(folder, error))
    forms = {composed(name): name for name in stats if not name.isascii()}
    return Texts(stats, {name: own for name, own in written.items() if own != name}, "", forms)


def _trouble(folder: str, error: OSError) -> str:
    """Why a folder that may hold labels cannot be listed; "" where there is none, as of background images."""
    if error.errno == errno.ENOENT:
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        if not os.path.islink(folder):
            return ""
    return f"the folder {folder} cannot be listed: {error.strerror or error}"


def _shared_labels(images: Sequence[str], stats: Sequence[FileStat]) -> list[Problem]:
    """Label files that name the objects of several images, whose names differ in nothing but the suffix."""
    first: dict[str, str] = {}
    found = []
    for image, stat in zip(images, stats, strict=True):
        other = image if stat == ABSENT else first.setdefault(without_suffix(image), image)
        if other != image:  # one that a list names twice is the same image
            message = f"{os.path.basename(other)} and {os.path.basename(image)}: both are taken to show its objects"
            found.append(Problem(label_path(image), 0, SHARED, message))
    return found


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
    return parse_files([data], num_classes=num_classes, single_cls=single_cls, rules=rules)[0]


def parse_files(files: Sequence[bytes], *, num_classes: int, single_cls: bool, rules: TextRules) -> list[Labels]:
    """Read the content of each of some label files, in less time than one by one; see `parse_labels`."""
    known = ClassIds(num_classes, None if rules.ids is None else np.array(rules.ids, np.int64), single_cls)
    texts = [data.removeprefix(_BOM) for data in files]
    return [
        _parse_rows(text, known, rules.keypoints) if labels is None else labels
        for text, labels in zip(texts, _parse_clean(texts, known), strict=True)
    ]


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


def _parse_clean(texts: Sequence[bytes], known: ClassIds) -> list[Labels | None]:
    """All rows of all files at once; None for a file of which a row needs a closer look."""
    tokens = [text.split() if _CLEAN_FILE.fullmatch(text + b"\n") else None for text in texts]
    counts = [len(found) // 5 if found else 0 for found in tokens]
    rows = np.array(list(itertools.chain.from_iterable(filter(None, tokens))), np.float64).reshape(-1, 5)
    rows[:, 0] = known.classes(rows[:, 0])
    rows[(rows[:, 0] < 0) | (rows[:, 1:] < LOW).any(1) | (rows[:, 1:] > HIGH).any(1)] = 0
    out = rows.astype(np.float32)
    sound = np.all(out[:, 3:] > 0, axis=1).tolist()  # in float32, and not of the rows above
    keys = out.view("V20").ravel().tolist()
    cls, boxes = out[:, 0].copy(), out[:, 1:].copy()
    labels: list[Labels | None] = []
    end = 0
    for found, count in zip(tokens, counts, strict=True):
        start, end = end, end + count
        clean = found is not None and all(sound[start:end]) and len(set(keys[start:end])) == count
        labels.append(Labels(cls[start:end], boxes[start:end], []) if clean else None)
    return labels


def _parse_rows(data: bytes, known: ClassIds, keypoints: tuple[int, int] | None) -> Labels:
    if data.startswith(_WIDE_BOMS):
        return no_labels([LabelProblem(0, UNREADABLE, "the file is UTF-16 text; save it as UTF-8")])
    kept: dict[bytes, tuple[np.ndarray, int]] = {}  # row bytes -> (row, line)
    problems: list[LabelProblem] = []
    outlines: list[int] = []  # lines
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
            if len(tokens) != 5 and not (keypoints and len(tokens) == 5 + keypoints[0] * keypoints[1]):
                outlines.append(number)
    if outlines:
        message = f"{len(outlines):,} of the rows; the bounds of an outline are its box"
        problems.append(LabelProblem(outlines[0], OUTLINE, message))
    if not kept:
        return no_labels(problems)
    rows = np.stack([row for row, _ in kept.values()])
    return Labels(rows[:, 0].copy(), rows[:, 1:].copy(), problems)


def parse_ignored(data: bytes, known: ClassIds) -> tuple[Ignored, list[LabelProblem]]:
    """Read the content of a file of areas to ignore; rows are those of a label file, class -1 stands for every class.

    Whether areas lie over each other, or one stands there twice, changes nothing.
    """
    rows: list[np.ndarray] = []
    problems: list[LabelProblem] = []
    for number, raw in enumerate(data.removeprefix(_BOM).splitlines(), start=1):
        tokens = raw.decode("utf-8", errors="replace").split()
        if not tokens:
            continue
        every = tokens[0] == "-1"
        allowed = known._replace(single_cls=True) if every else known  # any class will do to look at the numbers
        row = _parse_row(["0", *tokens[1:]] if every else tokens, allowed, None)
        if isinstance(row, str):
            kind, _, message = row.partition(": ")
            problems.append(LabelProblem(number, kind, message))
            continue
        if every:
            row[0] = ANY_CLASS
        rows.append(row)
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Ignored(table[:, 0].copy(), table[:, 1:].copy()), problems


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
