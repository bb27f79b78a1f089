"""The index of a data set split: every image's path, shape and labels in a few flat arrays.

One million images cost about 110 bytes each plus 20 bytes per box. No Python object is kept per image, so worker
processes share the arrays: after a fork by copy-on-write, after a spawn through torch shared memory.

The index is cached outside the data folder as plain arrays (never a pickle). Names, sizes and modification times of all
files, the settings and the class names must be unchanged for it to be used again; for large data sets that is looked at
while training has begun, see `eyas.data.reopen`.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import time
import zipfile
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from eyas.data import held_out, reopen
from eyas.data.balance import ImageClasses
from eyas.data.cache import cache_root, locked
from eyas.data.decode import decode_deep, large_images
from eyas.data.depth import BYTE, White, describe, find_white, peak_of
from eyas.data.files import ABSENT, FileStat
from eyas.data.formats import Labels, LabelSource, YoloText
from eyas.data.formats.base import ANY_CLASS, NO_USABLE_ROW
from eyas.data.formats.yolo import NO_RULES, TextRules, listed
from eyas.data.ignore import NO_IGNORE_RULES, IgnoreRules, areas, distinct
from eyas.data.image_file import read_image_file
from eyas.data.image_header import MISSING_IMAGE, ImageHeader, ImageProblem, look_at, why_no_file
from eyas.data.processes import can_fork, spread, usable_cores
from eyas.data.progress import with_progress
from eyas.data.remote.address import Room, first_remote, is_remote
from eyas.data.remote.kept import room_of
from eyas.data.remote.service import THREADS
from eyas.data.report import DatasetReport, Problem, lost_kind
from eyas.files import replacing, short_digest, sweep
from eyas.log import LOGGER

CACHE_VERSION = 7  # raise it when the meaning of the arrays or of a rule changes
NO_PICTURE = lost_kind("no picture in such values")
_ANY_CLASS = 1 << 24  # ids beyond float32's whole numbers
_CHUNK = 256  # images per task of a process
_MANY = 2000  # images from which on several processes are worth their start
_PROCESSES = 8  # more wait for the disk
_CONTENT = ("shapes", "orientations", "label_offsets", "cls", "boxes")
_AREAS = ("ignored_offsets", "ignored", "ignored_kind", "ignored_classes")
_ARRAYS = ("path_bytes", "path_offsets", "depths", "peaks", "stats", "digests", *_CONTENT, *_AREAS)


class ImageIndex:
    """One split in flat arrays; N images, T boxes.

    Attributes:
        shapes: (N, 2) int32, height and width in px after EXIF orientation.
        orientations: (N,) uint8 EXIF orientation, 1 = upright.
        depths: (N,) uint8, see `eyas.data.depth`.
        peaks: (N,) float64, the largest value of an image of more than 8 bits; 0 for others.
        stats: (N, 4) int64, size and time of change in ns of each image, then of its label file.
        digests: (N, 2) int64 of each image's bytes (its size and samples of them), then of its labels.
        label_offsets: (N+1,) int64; boxes of image i are rows label_offsets[i] : label_offsets[i+1].
        cls: (T,) float32 class ids.
        boxes: (T, 4) float32 cxcywh, normalised by the image size.
        ignored_offsets: (N+1,) int64; areas to ignore of image i are rows ignored_offsets[i] : ignored_offsets[i+1].
        ignored: (M, 4) float32 cxcywh, normalised by the image size.
        ignored_kind: (M,) int64 row of `ignored_classes`.
        ignored_classes: (S, nc) bool, the classes that were not annotated in an area of each kind.
        white: what is white in images of more than 8 bits.
        names: {class id: name}.
        report: what was found and what was wrong.
        chosen: by which rules images and labels were chosen when it was built, see `effects`.
        cache_key: hash that covers absolute paths, file sizes and times on this machine.
        unseen: compares each image with what was indexed before it is used; None where every file was looked at.
    """

    path_bytes: np.ndarray
    path_offsets: np.ndarray
    shapes: np.ndarray
    orientations: np.ndarray
    depths: np.ndarray
    peaks: np.ndarray
    stats: np.ndarray
    digests: np.ndarray
    label_offsets: np.ndarray
    cls: np.ndarray
    boxes: np.ndarray
    ignored_offsets: np.ndarray
    ignored: np.ndarray
    ignored_kind: np.ndarray
    ignored_classes: np.ndarray

    def __init__(
        self, arrays: Mapping[str, np.ndarray], *, names: Mapping[int, str], report: DatasetReport, cache_key: str = ""
    ) -> None:
        for name in _ARRAYS:
            setattr(self, name, arrays[name])
        self.names = dict(names)
        self.report = report
        self.cache_key = cache_key
        self.chosen: dict[str, object] = {}
        self.white = find_white(self.depths, self.peaks)
        self.unseen: reopen.Unseen | None = None
        self._shared: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.shapes)

    def __repr__(self) -> str:
        return f"ImageIndex({self.report.summary()})"

    def effects(self) -> dict[str, object]:
        """Return by which rules its images and labels were chosen, by option, and where they are kept."""
        return self.chosen | ({"remote_cache": self.room.text} if self.room else {})

    def path(self, i: int) -> str:
        """Absolute path of image i."""
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        return os.fsdecode(self.path_bytes[self.path_offsets[i] : self.path_offsets[i + 1]].tobytes())

    def stat(self, i: int) -> FileStat:
        """What the file of image i was from outside when it was indexed."""
        size, mtime = self.stats[i, :2].tolist()
        return FileStat(size, mtime)

    @cached_property
    def room(self) -> Room | None:
        """Where this host keeps images that lie elsewhere; None if there are none."""
        at = first_remote(self.path_bytes.tobytes())
        return None if at < 0 else room_of(self.path(int(np.searchsorted(self.path_offsets, at, side="right")) - 1))

    def refuse_changed(self, i: int) -> None:
        """Refuse image i if its file or labels are not those that were indexed.

        Raises:
            ValueError: names the file.
        """
        if self.unseen is not None:
            self.unseen.look_at(i, self.path)

    def refuse_known_changes(self) -> None:
        """Refuse all images if a change is known by now, of whichever image.

        Raises:
            ValueError: names the file.
        """
        if self.unseen is not None:
            self.unseen.refuse_changed()

    def white_of(self, i: int) -> float | None:
        """What is white in image i; None for one of up to 8 bits."""
        return self.white.of(int(self.depths[i]))

    def labels(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """cls (n,) float32 and boxes (n, 4) float32 normalised cxcywh of image i: views, not to be written to."""
        rows = slice(self.label_offsets[i], self.label_offsets[i + 1])
        return self.cls[rows], self.boxes[rows]

    def areas(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Kinds (m,) int64 and boxes (m, 4) float32 normalised cxcywh of what is to be ignored in image i: views."""
        rows = slice(self.ignored_offsets[i], self.ignored_offsets[i + 1])
        return self.ignored_kind[rows], self.ignored[rows]

    def instances(self, nc: int | None = None) -> np.ndarray:
        """Boxes per class, (nc,) int64."""
        return np.bincount(self.cls.astype(np.int64), minlength=len(self.names) if nc is None else nc)

    def image_classes(self, nc: int | None = None) -> ImageClasses:
        """Which classes each image shows."""
        return ImageClasses.from_labels(self.cls, self.label_offsets, len(self.names) if nc is None else nc)

    def objects(self) -> np.ndarray:
        """Boxes per image, (N,) int64."""
        return np.diff(self.label_offsets)

    def max_objects(self) -> int:
        """The most boxes any image has."""
        return int(self.objects().max(initial=0))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content: relative paths, shapes, labels, names. Equal for equal data on any machine."""
        digest = hashlib.sha256(json.dumps(self.names).encode())
        digest.update(b"".join([path + b"\0" for path in self.relative_paths()]))
        # Data without areas to ignore are what they were before there were such areas.
        for name in (*_CONTENT, *(_AREAS if len(self.ignored) else ())):
            digest.update(np.ascontiguousarray(getattr(self, name)).data)
        return digest.hexdigest()

    def relative_paths(self) -> list[bytes]:
        """Paths of all images below the folder that holds them all, `/` before."""
        data, ends = self.path_bytes.tobytes(), self.path_offsets.tolist()
        paths = [data[start:end] for start, end in itertools.pairwise(ends)]
        # What the first and the last of all have in common, those between have too.
        root = os.path.commonpath([os.path.dirname(min(paths)), os.path.dirname(max(paths))]) if paths else b""
        return [path[len(root) :] for path in paths]

    def __getstate__(self) -> dict[str, Any]:
        """State with torch tensors in shared memory, so that worker processes started by spawn get no copy."""
        if self._shared is None:
            import torch

            tensors = {name: torch.from_numpy(np.array(getattr(self, name))).share_memory_() for name in _ARRAYS}
            for name, tensor in tensors.items():
                setattr(self, name, tensor.numpy())
            self._shared = tensors
        return {key: value for key, value in self.__dict__.items() if key not in _ARRAYS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in _ARRAYS:
            setattr(self, name, state["_shared"][name].numpy())


class _Seen(NamedTuple):
    """What an image shows of itself: no header for one that cannot be used, and then the last problem tells why."""

    header: ImageHeader | None
    peak: float
    problems: list[ImageProblem]
    digest: int = 0  # of its bytes


class _Columns(NamedTuple):
    """What is known of k kept images with t boxes."""

    places: np.ndarray  # (k,) int64 among all images
    headers: np.ndarray  # (k, 4) int32
    peaks: np.ndarray  # (k,) float64
    digests: np.ndarray  # (k, 2) int64, as those of an index
    counts: np.ndarray  # (k,) int64 boxes per image
    cls: np.ndarray  # (t,) float32
    boxes: np.ndarray  # (t, 4) float32
    areas: np.ndarray  # (k,) int64 areas to ignore per image
    ignored: np.ndarray  # (m, 4) float32
    ignored_bits: np.ndarray  # (m, ceil(nc / 8)) uint8, a bit for each class that was not annotated


class _Chunk(NamedTuple):
    """Scan of some images: the kept ones, and all problems."""

    kept: _Columns
    problems: list[Problem]
    left_out: Counter[str]  # images by the reason
    unknown: set[int]  # ids of rows that were dropped for them


def build_index(
    sources: LabelSource | Sequence[str | Path],
    *,
    names: Mapping[int, str],
    single_cls: bool = False,
    classes: Sequence[int] | None = None,
    fraction: float = 1.0,
    val_fraction: float | None = None,
    rules: TextRules = NO_RULES,
    ignore: IgnoreRules = NO_IGNORE_RULES,
    white: White | None = None,
    workers: int | None = None,
    cache_dir: str | Path | None = None,
    split: str = "train",
) -> ImageIndex:
    """Scan images and labels, or load the cached result of the same scan.

    Args:
        sources: what `check_dataset` made of the split: a label source, or folders, `.txt` lists and images, which are
            labelled by YOLO text.
        names: {class id: name}.
        single_cls: every object becomes class 0.
        classes: keep only boxes of these class ids (ids are not renumbered); images stay.
        fraction: in (0, 1]: that share of the images; an integer > 1: that many. Chosen at random with a fixed seed,
            never the first ones of the alphabet, which may all show one class; a smaller share lies within a larger.
        val_fraction: share of the images that is held out for the split "val", see `eyas.data.held_out`; "train" gets
            the others, and the split "test" all.
        rules: what the description says of label files of YOLO text.
        ignore: which objects are areas to ignore, and which images lack which classes.
        white: what is white in images of more than 8 bits; found from these images unless given.
        workers: processes that read images and labels; 1: this one. Default: this one for less than 2,000 images, else
            min(8, CPU cores). Where there is no fork (macOS, Windows) it is always this one.
        cache_dir: see `eyas.data.cache.cache_root`.
        split: for messages, and "train" must have labels.

    User files are only read. Images that cannot be used are dropped and reported, and so are those whose label rows
    are all dropped: they show something, and as background would teach that it is nothing.

    Raises:
        ValueError: no image found, none usable, or a training split without a single box. The message says why.
    """
    if not (0 < fraction <= 1 or (fraction > 1 and fraction == int(fraction))):
        raise ValueError(f"fraction={fraction} must be in (0, 1], or a whole number of images.")
    if not single_cls:
        check_classes(classes, names)
    settings = {
        "version": CACHE_VERSION,
        "names": {int(key): value for key, value in names.items()},
        "single_cls": single_cls,
        "classes": sorted(classes) if classes is not None else None,
        "val_fraction": val_fraction if split in ("train", "val") else None,
        "split": split,
        "ignore": ignore,
    }
    source = sources if isinstance(sources, LabelSource) else _yolo_text(sources, settings, rules)
    file = _cache_file(source, settings, fraction, cache_dir)
    index = _reopen(file, source, settings) or _look_and_load(file, source, settings, fraction, workers)
    _check_usable(index, split, classes)
    index.chosen = {"fraction": fraction, "single_cls": single_cls, "classes": settings["classes"] or sorted(names)}
    index.chosen["ignore"] = list(ignore.classes) or ignore.use
    index.chosen |= {"ids_start": rules.ids[0] if rules.ids else 0, "val_fraction": val_fraction}
    index.white = index.white.known_as(white)
    _tell_choices(index, settings, rules)
    return index


def _yolo_text(places: Sequence[str | Path], settings: Mapping[str, Any], rules: TextRules) -> YoloText:
    single = settings["single_cls"]
    chosen = settings["classes"] is not None or bool(settings["ignore"].classes)
    # Chosen by the ids in the file, which may exceed the names when all become one class.
    count = _ANY_CLASS if single and chosen else len(settings["names"])
    return YoloText(places, num_classes=count, single_cls=single and not chosen, rules=rules)


def _tell_choices(index: ImageIndex, settings: Mapping[str, Any], rules: TextRules) -> None:
    """Write into the report how files are read, where that had to be decided."""
    report, share = index.report, settings["val_fraction"]
    report.choices = {"label_ids": list(rules.ids) if rules.ids else None, "val_fraction": share}
    report.choices["white"] = index.white.to_dict()
    report.notes, report.doubts = describe(index.white, index.depths, index.peaks)
    if rules.ids and rules.ids != tuple(range(len(rules.ids))):
        report.notes.append(f"{listed(rules.ids)} in label files stand for the classes 0 to {len(rules.ids) - 1}")
    if len(index.ignored):
        images = int((np.diff(index.ignored_offsets) > 0).sum())
        report.notes.append(
            f"{len(index.ignored):,} areas in {images:,} images are ignored: what is found there is no mistake"
        )
    if share is not None:
        part = "held out from training" if report.split == "val" else "left to train on"
        report.notes.append(
            f"{part}: {report.images:,} images; those held out are the nearest to {share:g} of all that can be had, "
            "chosen by the hash of their files"
        )


@dataclass(frozen=True)
class _Found:
    """What is to be scanned: N images and their labels, in arrays, which forked processes share.

    Attributes:
        source: tells the labels.
        settings: of the index.
        path_bytes, path_offsets, stats: as those of an index, of all images.
        key: hash of all that must be unchanged for a cached result to hold.
    """

    source: LabelSource
    settings: dict[str, Any]
    path_bytes: np.ndarray
    path_offsets: np.ndarray
    stats: np.ndarray
    key: str

    @property
    def images(self) -> int:
        """How many there are."""
        return len(self.stats)

    def paths(self, task: range) -> list[str]:
        """Absolute paths of some neighbours."""
        return _decoded(self.path_bytes, self.path_offsets[task.start : task.stop + 1])


def _flat(
    source: LabelSource,
    settings: dict[str, Any],
    images: Sequence[tuple[str, FileStat]],
    label_stats: Sequence[FileStat],
) -> _Found:
    encoded = [os.fsencode(path) for path, _ in images]
    digest = hashlib.sha256(reopen.asked_for(source, settings).encode())
    for path, (_, stat), label in zip(encoded, images, label_stats, strict=True):
        digest.update(b"%b\0%d %d %d %d\n" % (path, *stat, *label))
    numbers = itertools.chain.from_iterable(stat + label for (_, stat), label in zip(images, label_stats, strict=True))
    return _Found(
        source,
        settings,
        np.frombuffer(b"".join(encoded), np.uint8),
        _offsets([len(path) for path in encoded]),
        np.fromiter(numbers, np.int64, 4 * len(images)).reshape(-1, 4),
        digest.hexdigest(),
    )


def _decoded(path_bytes: np.ndarray, offsets: np.ndarray) -> list[str]:
    """The paths between the (n+1,) offsets."""
    first, *ends = offsets.tolist()
    data = path_bytes[first : offsets[-1]].tobytes()
    return [os.fsdecode(data[start - first : end - first]) for start, end in itertools.pairwise([first, *ends])]


def _find(
    source: LabelSource, fraction: float, settings: Mapping[str, Any], folder: Path
) -> tuple[list[tuple[str, FileStat]], list[FileStat]]:
    split = settings["split"]
    found = source.images()
    if not found:
        raise ValueError(f"No images for {split} in {source}. {source.explain([])}".rstrip())
    if all(stat == ABSENT for _, stat in found):
        raise ValueError(_all_missing(source, [path for path, _ in found], split))
    if settings["val_fraction"]:
        found = held_out.part(found, settings["val_fraction"], held_out=split == "val", folder=folder)
        if not found:
            raise ValueError(
                f"No images of {source} can be held out for val: all files are the same. Give val images of its own."
            )
    found = _choose(found, fraction)
    label_stats = source.label_stats([path for path, _ in found])
    there = [(path, stat) for (path, seen), stat in zip(found, label_stats, strict=True) if seen != ABSENT]
    if split == "train" and there and all(stat == ABSENT for _, stat in there):
        images = [path for path, _ in there]
        raise ValueError(
            f"None of the {len(images):,} training images has a label file. {source.explain(images)}".rstrip()
        )
    return found, label_stats


def _all_missing(source: LabelSource, images: Sequence[str], split: str) -> str:
    backslash = (
        " It is written with backslashes, as on Windows; with / it leads nowhere, too." if "\\" in images[0] else ""
    )
    return (
        f"All {len(images):,} images for {split} that {source} names are missing, for example {images[0]}.{backslash} "
        "Relative lines start at the list's folder, or at the data set's."
    )


def _reopen(file: Path, source: LabelSource, settings: dict[str, Any]) -> ImageIndex | None:
    """Return the cached index if folders and lists are as they were; its files are looked at when they are used."""
    watch = reopen.load_watch(file)
    if watch is None or not watch.holds(reopen.asked_for(source, settings)):
        return None
    index = _load(file, watch.key, settings["split"], settings["names"])
    if index is None:
        return None
    index.report.unused, index.report.unused_names = watch.unused, watch.unused_names
    index.unseen = reopen.Unseen(source, index.stats, file)
    index.unseen.look_at_all(index.path)
    return index if index.unseen.changed is None else None


def _look_and_load(
    file: Path, source: LabelSource, settings: dict[str, Any], fraction: float, workers: int | None
) -> ImageIndex:
    """Look at every file; return the cached index if none has changed, else a new one."""
    began = time.time_ns()
    found = _flat(source, settings, *_find(source, fraction, settings, file.parent))
    unused, named = dict(source.unused()), source.unused_names()
    index = _load_or_scan(found, file, workers)
    index.report.unused, index.report.unused_names = unused, named
    if len(index) >= reopen.LARGE:
        left_out = _left_out(found, index)
        reopen.save_watch(
            file, source, settings, key=index.cache_key, images=len(index), left_out=left_out, since=began
        )
    return index


def _left_out(found: _Found, index: ImageIndex) -> list[str]:
    """Images that are not in the index, which has the others in the same order."""
    if len(index) == found.images:
        return []
    kept = itertools.chain(_decoded(index.path_bytes, index.path_offsets), [None])
    following, left_out = next(kept), []
    for path in found.paths(range(found.images)):
        if path == following:
            following = next(kept)
        else:
            left_out.append(path)
    return left_out


def _load_or_scan(found: _Found, file: Path, workers: int | None) -> ImageIndex:
    split, names, key = found.settings["split"], found.settings["names"], found.key
    index = _load(file, key, split, names)
    if index is None:
        with locked(file):  # several processes of a host come here at once: one scans, the others read what it found
            index = _load(file, key, split, names)
            if index is None:
                index = _scan(found, workers)
                if len(index):
                    _save(file, index)
    return index


def check_classes(classes: Sequence[int] | None, names: Mapping[int, str]) -> None:
    """Refuse ids of classes that there are not.

    Raises:
        ValueError: names the first one.
    """
    unknown = [c for c in classes or () if c not in names]
    if unknown:
        raise ValueError(f"classes={list(classes or ())}: no class {unknown[0]}; ids go from 0 to {len(names) - 1}.")


def _choose(found: list[tuple[str, FileStat]], fraction: float) -> list[tuple[str, FileStat]]:
    if fraction == 1:
        return found
    count = round(len(found) * fraction) if fraction < 1 else int(fraction)
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i] for i in sorted(order[: max(count, 1)])]


def _scan(found: _Found, workers: int | None) -> ImageIndex:
    names: dict[int, str] = found.settings["names"]
    split, total = found.settings["split"], found.images
    tasks = [range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK)]
    report, unknown = DatasetReport(split=split), set[int]()
    parts: list[_Columns] = []
    with large_images(), closing(_chunks(found, tasks, _processes(found, workers))) as results:
        for chunk in with_progress(results, title=f"Scanning {split}", total=total, each=_CHUNK):
            report.add(chunk.problems)
            report.left_out += chunk.left_out
            unknown |= chunk.unknown
            parts.append(chunk.kept)
    report.add(found.source.problems())
    arrays = _assemble(found, _joined(parts))
    cls = arrays["cls"]
    if doubt := found.source.doubt(cls, unknown):
        raise ValueError(f"{found.source}: {doubt}")
    if len(cls) and not 0 <= cls.min() <= cls.max() < len(names):
        raise ValueError(
            f"{found.source} gives class ids from {cls.min():g} to {cls.max():g} for {len(names)} classes."
        )
    counts = np.diff(arrays["label_offsets"])
    report.images, report.background, report.boxes = len(counts), int((counts == 0).sum()), len(cls)
    instances = np.bincount(cls.astype(np.int64), minlength=len(names))
    report.instances = {name: int(instances[i]) for i, name in names.items()}
    return ImageIndex(arrays, names=names, report=report, cache_key=found.key)


def _processes(found: _Found, workers: int | None) -> int:
    if not can_fork() or first_remote(found.path_bytes.tobytes()) >= 0:  # threads ask for many images at a time
        return 1
    return workers or (min(_PROCESSES, usable_cores()) if found.images >= _MANY else 1)


def _chunks(found: _Found, tasks: Sequence[range], processes: int) -> Generator[_Chunk, None, None]:
    """Scan all tasks, in order: labels in the same processes as images if their source says so, else in this one."""

    def scan(task: range) -> _Chunk:
        return _read_labels(found, task, _look_at(found, task))

    if processes == 1:
        for task in tasks:
            yield scan(task)
    elif found.source.stateless:
        yield from spread(scan, tasks, processes)
    else:
        for task, seen in zip(tasks, spread(partial(_look_at, found), tasks, processes), strict=True):
            yield _read_labels(found, task, seen)


def _look_at(found: _Found, task: range) -> list[_Seen]:
    paths, stats = found.paths(task), [FileStat(*row) for row in found.stats[task.start : task.stop, :2].tolist()]
    if any(map(is_remote, paths)):  # each is waited for, and nothing is computed meanwhile
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(_see, paths, stats))
    return list(map(_see, paths, stats))


def _see(image: str, stat: FileStat) -> _Seen:
    if stat.size < 0:
        return _Seen(None, 0, [why_no_file(image)])
    try:
        header, trouble, sample = look_at(image, stat)
    except OSError as error:  # it went just now
        return _Seen(None, 0, [ImageProblem(MISSING_IMAGE, error.strerror or str(error))])
    problems = [trouble] if trouble else []
    peak = _peak(image, header) if header else 0.0
    if isinstance(peak, str):
        return _Seen(None, 0, [*problems, ImageProblem(NO_PICTURE, peak)])
    return _Seen(header, peak, problems, short_digest(sample) if header else 0)


def _digest_of(labels: Labels) -> int:
    rows = labels.cls, labels.boxes, labels.ignored.cls, labels.ignored.boxes, np.array(labels.lacking, np.int64)
    return short_digest(*(np.ascontiguousarray(row).tobytes() for row in rows))


def _read_labels(found: _Found, task: range, seen: Sequence[_Seen]) -> _Chunk:
    source = found.source
    kept: list[int] = []
    headers: list[ImageHeader] = []
    peaks: list[float] = []
    digests: list[tuple[int, int]] = []
    rows: list[Labels] = []
    problems: list[Problem] = []
    unknown: set[int] = set()
    left_out: Counter[str] = Counter()
    paths, stats = found.paths(task), found.stats[task.start : task.stop, 2:].tolist()
    usable = [
        (path, FileStat(*stat), header) for path, stat, (header, *_) in zip(paths, stats, seen, strict=True) if header
    ]
    nc = len(found.settings["names"])
    read = iter(source.labels_of(*zip(*usable, strict=True)) if usable else ())
    for i, image, (header, peak, troubles, digest) in zip(task, paths, seen, strict=True):
        problems += [Problem(image, 0, *trouble) for trouble in troubles]
        if header is None:
            left_out[troubles[-1].kind] += 1
            continue
        labels = next(read)
        problems += [Problem(source.label_file(image), *problem[:3]) for problem in labels.problems]
        unknown |= {problem.unknown for problem in labels.problems if problem.unknown is not None}
        if labels.unusable:
            left_out[NO_USABLE_ROW] += 1
            continue
        kept.append(i)
        headers.append(header)
        peaks.append(peak)
        rows.append(_choose_classes(found.settings["ignore"].applied(labels, image, nc), found.settings))
        digests.append((digest, _digest_of(rows[-1])))
    ignored = [areas(labels, nc) for labels in rows]
    columns = _Columns(
        np.array(kept, np.int64),
        np.array(headers, np.int32).reshape(-1, len(ImageHeader._fields)),
        np.array(peaks, np.float64),
        np.array(digests, np.int64).reshape(-1, 2),
        np.array([len(labels.cls) for labels in rows], np.int64),
        np.concatenate([np.zeros(0, np.float32), *(labels.cls for labels in rows)], dtype=np.float32),
        np.concatenate([np.zeros((0, 4), np.float32), *(labels.boxes for labels in rows)], dtype=np.float32),
        np.array([len(boxes) for boxes, _ in ignored], np.int64),
        np.concatenate([np.zeros((0, 4), np.float32), *(boxes for boxes, _ in ignored)], dtype=np.float32),
        np.concatenate([np.zeros((0, -(-nc // 8)), np.uint8), *(bits for _, bits in ignored)], dtype=np.uint8),
    )
    return _Chunk(columns, problems, left_out, unknown)


def _peak(image: str, header: ImageHeader) -> float | str:
    """The largest value of an image of more than 8 bits, or why it is no picture; 0 for others, which are not read."""
    if header.depth == BYTE:
        return 0.0
    try:
        return peak_of(decode_deep(read_image_file(image), header[:2], header.orientation))
    except (OSError, ValueError, cv2.error) as error:
        return str(error)


def _choose_classes(labels: Labels, settings: Mapping[str, Any]) -> Labels:
    ignored = labels.ignored
    if settings["classes"] is not None:
        keep = np.isin(labels.cls, settings["classes"])
        labels = labels._replace(cls=labels.cls[keep], boxes=labels.boxes[keep])
    if settings["single_cls"]:
        ignored = ignored._replace(cls=np.full_like(ignored.cls, ANY_CLASS))
        labels = labels._replace(cls=np.zeros_like(labels.cls), ignored=ignored, lacking=(0,) if labels.lacking else ())
    return labels


def _joined(parts: list[_Columns]) -> _Columns:
    """All parts in one, column by column; the parts are used up, so that not everything is there twice."""
    columns = [list(column) for column in zip(*parts, strict=True)]
    parts.clear()
    return _Columns(*(np.concatenate(columns.pop(0)) for _ in _Columns._fields))


def _assemble(found: _Found, kept: _Columns) -> dict[str, np.ndarray]:
    lengths = np.diff(found.path_offsets)
    is_kept = np.zeros(found.images, bool)
    is_kept[kept.places] = True
    classes, kind = distinct(kept.ignored_bits, len(found.settings["names"]))
    return {
        "path_bytes": found.path_bytes[np.repeat(is_kept, lengths)],
        "path_offsets": _offsets(lengths[is_kept]),
        "shapes": np.ascontiguousarray(kept.headers[:, :2]),
        "orientations": kept.headers[:, 2].astype(np.uint8),
        "depths": kept.headers[:, 3].astype(np.uint8),
        "peaks": kept.peaks,
        "stats": found.stats[is_kept],
        "digests": kept.digests,
        "label_offsets": _offsets(kept.counts),
        "cls": kept.cls,
        "boxes": kept.boxes,
        "ignored_offsets": _offsets(kept.areas),
        "ignored": kept.ignored,
        "ignored_kind": kind,
        "ignored_classes": classes,
    }


def _offsets(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)


def _cache_file(
    source: LabelSource, settings: Mapping[str, Any], fraction: float, cache_dir: str | Path | None
) -> Path:
    """One file per source and settings, replaced when their content changes, so that old ones do not pile up."""
    settings = {key: value for key, value in settings.items() if key != "names"}
    name = hashlib.sha256(json.dumps([source.identity, settings, fraction]).encode()).hexdigest()[:24]
    return cache_root(cache_dir) / "index" / f"{name}.npz"


def _load(file: Path, key: str, split: str, names: Mapping[int, str]) -> ImageIndex | None:
    try:
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            arrays = {name: stored[name] for name in _ARRAYS}
            report = DatasetReport.from_dict(split, json.loads(stored["report"].tobytes()))
            fingerprint = str(stored["fingerprint"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        LOGGER.warning("Ignoring the damaged index cache %s (%s).", file, error)
        return None
    if _is_mended(report):
        return None
    index = ImageIndex(arrays, names=names, report=report, cache_key=key)
    index.fingerprint = fingerprint  # it takes seconds for a million images, and every run asks for it
    return index


def _is_mended(report: DatasetReport) -> bool:
    """Whether a file that could not be read may be by now: permissions change without a trace in size and time."""
    denied = os.strerror(errno.EACCES)
    return any(denied in problem.message and os.access(problem.file, os.R_OK) for problem in report.problems)


def _save(file: Path, index: ImageIndex) -> None:
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    report = np.frombuffer(json.dumps(index.report.to_dict()).encode(), np.uint8)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sweep(file.parent)
        with replacing(file) as handle:
            key, fingerprint = np.array(index.cache_key), np.array(index.fingerprint)
            np.savez(handle, key=key, fingerprint=fingerprint, report=report, **arrays)
    except OSError as error:
        LOGGER.warning("The index is not cached: %s (%s). Set EYAS_CACHE to a writable folder.", file, error)


def _check_usable(index: ImageIndex, split: str, classes: Sequence[int] | None) -> None:
    report = index.report
    reasons = "".join(f"\n  {line}" for line in report.lines(limit=10))
    if not len(index):
        raise ValueError(f"None of the images for {split} can be used:{reasons}")
    if split == "train" and report.boxes == 0:
        chosen = f" of classes {list(classes)}" if classes is not None else ""
        reasons = f" Problems found:{reasons}" if report.counts else ""
        raise ValueError(f"The {report.images:,} training images have no box{chosen}; nothing can be learnt.{reasons}")
