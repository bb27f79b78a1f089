"""Every image once, small: what it shows in 32 x 32 grey pixels, how bright it is, and a hash of its file."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import closing
from typing import NamedTuple

import cv2
import numpy as np

from eyas.data.decode import load_image
from eyas.data.image_file import open_image_file
from eyas.data.index import ImageIndex
from eyas.data.processes import can_fork, spread, usable_cores
from eyas.data.progress import with_progress

SIDE = 32  # px of a thumb: what is left of an image when it is told apart from others
_DECODED = 64  # px: a JPEG is decoded at an eighth of its size if that leaves so many
_CHUNK = 64  # images per task of a process
_MANY = 256  # images from which on several processes are worth their start
_PROCESSES = 16


class Pixels(NamedTuple):
    """What N images of a split look like.

    Attributes:
        thumbs: (N, 32, 32) uint8 grey, stretched; 0 where an image cannot be decoded.
        brightness: (N,) float32 mean grey value, 0..255; NaN where an image cannot be decoded.
        digests: (N,) uint64 hash of each file; 0 for one that cannot be read.
        broken: {image: why it cannot be decoded}.
    """

    thumbs: np.ndarray
    brightness: np.ndarray
    digests: np.ndarray
    broken: dict[int, str]

    def contrast(self) -> np.ndarray:
        """(N,) float32 standard deviation of each thumb's grey values."""
        return self.thumbs.reshape(len(self.thumbs), SIDE * SIDE).std(axis=1, dtype=np.float32)


def look_at(index: ImageIndex, workers: int | None = None) -> Pixels:
    """Decode all images of a split.

    Args:
        index: the split.
        workers: processes; default: this one for less than 256 images, else min(16, CPU cores).
    """
    total = len(index)
    tasks = [range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK)]
    parts = []
    with closing(_parts(index, tasks, _processes(total, workers))) as results:
        for part in with_progress(results, title=f"Looking at {index.report.split}", total=total, each=_CHUNK):
            parts.append(part)
    return Pixels(
        np.concatenate([np.zeros((0, SIDE, SIDE), np.uint8), *(part.thumbs for part in parts)]),
        np.concatenate([np.zeros(0, np.float32), *(part.brightness for part in parts)]),
        np.concatenate([np.zeros(0, np.uint64), *(part.digests for part in parts)]),
        {i: why for part in parts for i, why in part.broken.items()},
    )


def _processes(images: int, workers: int | None) -> int:
    if not can_fork():
        return 1
    return workers or (min(_PROCESSES, usable_cores()) if images >= _MANY else 1)


def _parts(index: ImageIndex, tasks: list[range], processes: int) -> Generator[Pixels, None, None]:
    def work(task: range) -> Pixels:
        return _look_at_some(index, task)

    if processes == 1:
        yield from map(work, tasks)
    else:
        yield from spread(work, tasks, processes)


def _look_at_some(index: ImageIndex, task: range) -> Pixels:
    count = len(task)
    found = Pixels(
        np.zeros((count, SIDE, SIDE), np.uint8),
        np.full(count, np.nan, np.float32),
        np.zeros(count, np.uint64),
        {},
    )
    for place, i in enumerate(task):
        try:
            found.digests[place] = _digest(index.path(i))
            grey = cv2.cvtColor(_small(index, i), cv2.COLOR_BGR2GRAY)
        except (OSError, ValueError, cv2.error) as error:
            found.broken[i] = str(error)
            continue
        found.thumbs[place] = thumb = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        found.brightness[place] = thumb.mean()
    return found


def _small(index: ImageIndex, i: int) -> np.ndarray:
    height, width = index.shapes[i].tolist()
    return load_image(
        index.path(i),
        shape=(height, width),
        orientation=int(index.orientations[i]),
        white=index.white_of(i),
        imgsz=_DECODED,
        stretch=True,
    )


def _digest(path: str) -> int:
    with open_image_file(path, whole=True) as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8))
    return int.from_bytes(digest.digest())
