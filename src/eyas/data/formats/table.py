"""Annotation files of many images: read once, kept as flat arrays outside the data folder, asked image by image.

A JSON file of half a gigabyte takes ten seconds and as many times its size in memory. What a detector needs of it is a
tenth, and opens in a moment: the first process that needs it makes it, while others wait for it.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from eyas.data.cache import cache_root, locked
from eyas.data.files import ABSENT, FileStat, Some, counts_of, names_of, nearest_folder, stat_of
from eyas.data.formats.base import ANY_CLASS, LabelProblem, Labels, LabelSource, Numbers
from eyas.data.formats.entry import Entry, Images, image_folder, likely_folders
from eyas.data.formats.pixels import PixelRows, clean_labels, to_labels
from eyas.data.image_header import ImageHeader
from eyas.data.report import Problem, kept_kind, lost_kind
from eyas.files import replacing
from eyas.log import LOGGER

UNKNOWN_CLASS = lost_kind("unknown class")
LISTED_TWICE = kept_kind("image listed twice", "warning")
ANY = -1  # in place of the rank of a class
_FACTS = ("names", "images", "splits", "problems", "dropped", "row", "annotated")
_ARRAYS = ("sizes", "offsets", "ranks", "boxes", "ignored", "places")


class Table(NamedTuple):
    """What an annotation file tells of N images with T annotations.

    Attributes:
        names: of the classes, in order.
        images: (N) names of images as the file has them.
        splits: (N) of each image; empty where the file knows none.
        problems: (line, kind, message) of what belongs to no image.
        dropped: {image: (line, kind, message) of each annotation without a usable class or box}.
        row: what to call an annotation in a message, with `{}` for its place.
        sizes: (N, 2) int64 height and width in px, 0 where the file does not say.
        offsets: (N+1,) int64; annotations of image i are rows offsets[i] : offsets[i+1].
        ranks: (T,) int64 class as a place in `names`; `ANY` for areas of no class in particular.
        boxes: (T, 4) float64 left, top, width, height in px.
        ignored: (T,) bool.
        places: (T,) int64: line in the file, or number in its list.
        annotated: {image: classes, as places in `names`, of which all objects in it are annotated}, of images in which
            only some classes are.
    """

    names: list[str]
    images: list[str]
    splits: list[str]
    problems: list[tuple[int, str, str]]
    dropped: dict[int, list[tuple[int, str, str]]]
    row: str
    sizes: np.ndarray
    offsets: np.ndarray
    ranks: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray
    places: np.ndarray
    annotated: Mapping[int, list[int]] = MappingProxyType({})


class Row(NamedTuple):
    """An annotation as a reader finds it; see `Table`."""

    image: int
    rank: int
    box: tuple[float, float, float, float]
    ignored: bool
    place: int


class TableBuilder:
    """Gathers what a file tells, in the file's order. Its attributes are those of `Table`."""

    def __init__(self, row: str) -> None:
        self.row = row
        self.images: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.splits: list[str] = []
        self.rows: list[Row] = []
        self.problems: list[tuple[int, str, str]] = []
        self.dropped: dict[int, list[tuple[int, str, str]]] = {}
        self.annotated: dict[int, list[int]] = {}

    def drop(self, image: int, line: int, kind: str, message: str) -> None:
        """Tell of an annotation of an image that cannot be used."""
        self.dropped.setdefault(image, []).append((line, kind, message))

    def table(self, names: Sequence[str]) -> Table:
        """Return all in arrays, annotations image by image."""
        images = np.array([row.image for row in self.rows], np.int64)
        order = np.argsort(images, kind="stable")
        counts = np.bincount(images, minlength=len(self.images))
        return Table(
            list(names),
            self.images,
            self.splits if any(self.splits) else [],
            self.problems,
            self.dropped,
            self.row,
            np.array(self.sizes, np.int64).reshape(-1, 2),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.array([row.rank for row in self.rows], np.int64)[order],
            np.array([row.box for row in self.rows], np.float64).reshape(-1, 4)[order],
            np.array([row.ignored for row in self.rows], bool)[order],
            np.array([row.place for row in self.rows], np.int64)[order],
            self.annotated,
        )


class Ids(NamedTuple):
    """What a file calls its images and classes, by their names."""

    images: Mapping[str, int | str]
    classes: Mapping[str, int | str]


class Form(NamedTuple):
    """A kind of annotation file: its name, the version of its rules, and what reads one.

    `read` raises ValueError for a file that is none. `ids` reads what is no part of a `Table`; None: it has no ids.
    """

    name: str
    version: int
    read: Callable[[Path], Table]
    ids: Callable[[Path], Ids] | None = None


def read_table(file: Path, form: Form) -> Table:
    """Return what a file holds, from the cache if it has not changed since.

    Raises:
        ValueError: as `Form.read`, or the file cannot be opened.
    """
    stored = cache_root() / "annotations" / f"{_hash(form.name, file.absolute())}.npz"
    key = f"{form.version} {stat_of(str(file))}"
    table = _load(stored, key)
    if table is None:
        with locked(stored):  # other processes come here at the same time, and wait for one to read it
            table = _load(stored, key)
            if table is None:
                try:
                    table = form.read(file)
                except OSError as error:
                    raise ValueError(f"{file} cannot be read: {error.strerror or error}") from None
                _save(stored, key, table)
    return table


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr([str(part) for part in parts]).encode()).hexdigest()[:24]


def _load(stored: Path, key: str) -> Table | None:
    try:
        with np.load(stored, allow_pickle=False) as content:
            if str(content["key"]) != key:
                return None
            facts = json.loads(content["facts"].tobytes())
            for name in ("dropped", "annotated"):
                facts[name] = {int(image): rows for image, rows in facts.get(name, {}).items()}
            return Table(**facts, **{name: content[name] for name in _ARRAYS})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        LOGGER.warning("Ignoring the damaged cache of annotations %s (%s).", stored, error)
        return None


def _save(stored: Path, key: str, table: Table) -> None:
    facts = json.dumps({name: getattr(table, name) for name in _FACTS}).encode()
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        with replacing(stored) as handle:
            arrays = {name: getattr(table, name) for name in _ARRAYS}
            np.savez(handle, key=np.array(key), facts=np.frombuffer(facts, np.uint8), **arrays)
    except OSError as error:
        LOGGER.warning(
            "Annotations are read anew each time: %s (%s). Set EYAS_CACHE to a writable folder.", stored, error
        )


class TableSource(LabelSource):
    """Images of one split that one annotation file tells of.

    Args:
        form: of the file.
        entry: what the description says of the split.
        root: of the data set. Names of images may lead to files below it, or below the entry's images.
        names: classes of the description, found in the file by name; None: all of the file, in its order.
    """

    stateless = True

    def __init__(self, form: Form, entry: Entry, root: Path, names: Mapping[int, str] | None) -> None:
        self.form, self.entry, self.root = form, entry, root
        self.file = entry.annotations.absolute()
        self._table: Table | None = None
        self._rows_of: dict[str, list[int]] = {}
        self._about: list[Problem] = []
        self._others: dict[str, Some] = {}
        self._watched: list[str] = []
        self.names = dict(enumerate(self._read().names)) if names is None else dict(names)

    def __str__(self) -> str:
        return f"{self.file} (split {self.entry.split})" if self.entry.split else str(self.file)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_table": None}  # another process opens it in less time than it is sent

    def _read(self) -> Table:
        if self._table is None:
            self._table = read_table(self.file, self.form)
        return self._table

    @property
    def identity(self) -> list[object]:
        images = str(self.entry.images.absolute()) if self.entry.images else None
        return [self.form.name, self.form.version, str(self.file), images, self.entry.split, str(self.root.absolute())]

    def images(self) -> list[tuple[str, FileStat]]:
        table = self._read()
        chosen = [i for i in range(len(table.images)) if self.entry.split in ("", *table.splits[i : i + 1])]
        folder = image_folder(self.entry, self.root, [table.images[i] for i in chosen])
        images = Images(folder, self.root)
        found: dict[str, FileStat] = {}
        self._rows_of = {}
        for i in chosen:
            path, stat = images.find(table.images[i])
            found[path] = stat
            if path in self._rows_of:
                images.odd.add(LISTED_TWICE, "taken as one image with the annotations of both", table.images[i])
            self._rows_of.setdefault(path, []).append(i)
        if found and all(stat == ABSENT for stat in found.values()):
            raise ValueError(self._all_missing(table.images[chosen[0]], len(found)))
        self._about = images.odd.about(str(self.file))
        self._others = images.others((path for path, stat in found.items() if stat != ABSENT), self._of_others(folder))
        self._watched = sorted({str(self.file), *map(nearest_folder, images.folders())})
        return sorted(found.items())

    def _of_others(self, folder: Path) -> Iterator[str]:
        """Paths of the images that the file names for other splits."""
        table = self._read()
        images = Images(folder, self.root)  # what is odd about their names is told where they are used
        names = zip(table.images, table.splits)  # no splits, no others
        return (images.find(name)[0] for name, split in names if self.entry.split not in ("", split))

    def _all_missing(self, name: str, count: int) -> str:
        looked = [self.entry.images] if self.entry.images else likely_folders(self.file, self.root)
        return (
            f"None of the {count:,} images that {self} names is there, such as {name}. Looked in "
            f"{', '.join(map(str, looked))}. Say where they are: "
            f"{{annotations: {self.entry.annotations.name}, images: FOLDER}} in place of the file."
        )

    def label_stats(self, images: Sequence[str]) -> list[FileStat]:
        return [stat_of(str(self.file))] * len(images)

    def watched(self) -> list[str]:
        return self._watched

    def unused(self) -> Counter[str]:
        return counts_of(self._others)

    def unused_names(self) -> dict[str, list[str]]:
        return names_of(self._others)

    def label_file(self, image: str) -> str:
        return str(self.file)

    def numbers(self) -> Numbers | None:
        if self.form.ids is None:
            return None
        if not self._rows_of:
            self.images()
        told, listed = self.form.ids(self.file), self._read().images
        named = {path: listed[rows[0]] for path, rows in self._rows_of.items()}
        images = {path: told.images[name] for path, name in named.items() if name in told.images}
        names = self.names or {}
        return Numbers(images, {i: told.classes[name] for i, name in names.items() if name in told.classes})

    def labels_of(
        self, images: Sequence[str], stats: Sequence[FileStat], headers: Sequence[ImageHeader]
    ) -> list[Labels]:
        table = self._read()
        rows_of = [self._rows_of[image] for image in images]
        sizes = np.array([header[:2] for header in headers], np.int64).reshape(-1, 2)
        told = table.sizes[[numbers[0] for numbers in rows_of]]
        as_told = ((told == sizes).all(1) | (told <= 0).any(1)).tolist()
        plain = [
            i for i, (first, *more) in enumerate(rows_of) if as_told[i] and not more and first not in table.dropped
        ]
        firsts = np.array([rows_of[i][0] for i in plain], np.int64)
        counts = (table.offsets[firsts + 1] - table.offsets[firsts]).tolist()
        rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(*table.offsets[i : i + 2]) for i in firsts)])
        cls = self._classes(table)[table.ranks[rows]]
        clean = clean_labels(cls, table.boxes[rows], table.ignored[rows], counts, sizes[plain])
        found = dict(zip(plain, clean, strict=True))
        labels = []
        for i, (image, header) in enumerate(zip(images, headers, strict=True)):
            plainly = found.get(i)  # None, too, where a row needs a closer look
            labels.append(
                self.labels(image, stats[i], header) if plainly is None else self._with_lacking(plainly, rows_of[i])
            )
        return labels

    def labels(self, image: str, stat: FileStat, header: ImageHeader) -> Labels:
        table = self._read()
        numbers = self._rows_of[image]
        rows = np.concatenate([np.arange(*table.offsets[i : i + 2]) for i in numbers])
        problems = [LabelProblem(*row) for i in numbers for row in table.dropped.get(i, [])]
        ranks, places = table.ranks[rows], table.places[rows].tolist()
        cls = self._classes(table)[ranks]  # the last for `ANY`
        known = ~np.isnan(cls)
        for i in np.flatnonzero(~known).tolist():
            message = f"{table.row.format(places[i])}: {table.names[ranks[i]]!r} is no class of the data set"
            problems.append(LabelProblem(self._line(places[i]), UNKNOWN_CLASS, message))
        kept = np.flatnonzero(known).tolist()
        pixels = PixelRows(
            cls[known],
            table.boxes[rows][known],
            table.ignored[rows][known],
            [self._line(places[i]) for i in kept],
            [table.row.format(places[i]) for i in kept],
        )
        labels = to_labels(pixels, tuple(table.sizes[numbers[0]].tolist()), header)
        return self._with_lacking(labels._replace(problems=problems + labels.problems), numbers)

    def _with_lacking(self, labels: Labels, numbers: Sequence[int]) -> Labels:
        """Labels of an image with the classes that were not annotated in it, or not all of them."""
        table = self._read()
        if not all(i in table.annotated for i in numbers):
            return labels
        known = self._classes(table)[[rank for i in numbers for rank in table.annotated[i]]]
        return labels._replace(lacking=tuple(c for c in self.names or {} if c not in known))

    def _classes(self, table: Table) -> np.ndarray:
        """(names + 1,) class of each name of the file, NaN for none; then that of areas of any."""
        by_name = {name: i for i, name in (self.names or {}).items()}
        return np.array([*(by_name.get(name, np.nan) for name in table.names), ANY_CLASS], np.float64)

    def _line(self, place: int) -> int:
        """The line of an annotation; 0 where places are no lines."""
        return place if self.form.name == "ndjson" else 0

    def problems(self) -> list[Problem]:
        about = [Problem(str(self.file), *row) for row in self._read().problems]
        self._table = None  # of many images it takes much room, and has been asked about
        return [*about, *self._about]
