"""Images held out of training for validation, chosen by what they hold: the same on every machine and in every folder.

An image is validated on when the hash of its file is among the lowest. Names, order and dates do not count, equal
files fall on the same side, and a larger share holds all images of a smaller one.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from eyas.data.cache import locked
from eyas.data.files import FileStat
from eyas.data.image_file import open_image_file
from eyas.files import replacing
from eyas.log import LOGGER

Found = list[tuple[str, FileStat]]


def part(images: Found, share: float, *, held_out: bool, folder: Path) -> Found:
    """The images held out, or the others; at least one of each where there are two different ones.

    Args:
        images: (path, stat) of all images.
        share: of them to hold out, in (0, 1).
        held_out: which part.
        folder: where hashes are kept, so that a later run need not read all files again.
    """
    chosen = lowest(_digests(images, folder), share)
    return [image for image, out in zip(images, chosen, strict=True) if out == held_out]


def lowest(digests: np.ndarray, share: float) -> np.ndarray:
    """(N,) bool: which of N hashes belong to the lowest `share`; equal ones all do or none does.

    At least one hash is chosen and one is not, if there are two different ones.
    """
    different, position, counts = np.unique(digests, return_inverse=True, return_counts=True)
    if len(different) < 2:
        return np.zeros(len(digests), bool)
    chosen = int(np.argmin(np.abs(np.cumsum(counts)[:-1] - share * len(digests))))  # the nearest that is to be had
    return position <= chosen


def content_digest(path: str) -> int:
    """The first 63 bits of the SHA-256 of a file; the highest number for one that cannot be read: it is trained on, and
    reported there."""
    try:
        with open_image_file(path, whole=True) as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return 2**63 - 1
    return int.from_bytes(digest[:8], "big") >> 1


def _digests(images: Found, folder: Path) -> np.ndarray:
    """(N,) int64 hashes of the files' content."""
    key = _key(images)
    file = folder / f"{key[:24]}.digests.npz"
    with locked(file):  # of several processes of a host, one reads the files, and the others what it found
        found = _load(file, key)
        if found is None:
            found = _read_digests([path if stat.size >= 0 else "" for path, stat in images])
            _save(file, key, found)
    return found


def _load(file: Path, key: str) -> np.ndarray | None:
    try:
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            return np.asarray(stored["digests"]) if str(stored["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or damaged: it is made again


def _save(file: Path, key: str, digests: np.ndarray) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as output:
            np.savez(output, key=np.array(key), digests=digests)
    except OSError as error:
        LOGGER.warning("Hashes of images are not cached: %s (%s).", file, error)


def _read_digests(paths: Sequence[str]) -> np.ndarray:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return np.fromiter(pool.map(content_digest, paths, chunksize=64), np.int64, len(paths))


def _key(images: Found) -> str:
    return hashlib.sha256(json.dumps([(os.fsencode(path).hex(), *stat) for path, stat in images]).encode()).hexdigest()
