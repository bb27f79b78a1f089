"""What a split holds, image by image, in 24 bytes each: enough to say later what has changed, and nothing of the data.

Images are told apart by their size and samples of their bytes, taken while they are indexed: a hundred thousand whole
files are not read for it. A data set that has moved, and is equal otherwise, has the same content.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eyas.data.index import ImageIndex
from eyas.files import replacing, short_digest

VERSION = "2:"  # before a hash; those of other versions cannot be compared
FILE = "data_digests.npz"  # in the folder of a run
_NAMED = 3  # files of a message
_PARTS = ("paths", "images", "labels")


class Content(NamedTuple):
    """Of N images: (N,) int64 digests of their paths below the data's root, their bytes and their labels."""

    paths: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    names: str

    def digest(self) -> str:
        """Return the hash of all."""
        total = hashlib.sha256(self.names.encode())
        for part in _PARTS:
            total.update(np.ascontiguousarray(getattr(self, part)).data)
        return VERSION + total.hexdigest()


def content_of(index: ImageIndex) -> Content:
    """Return what a split holds."""
    paths = np.array([short_digest(path) for path in index.relative_paths()], np.int64)
    return Content(paths, index.digests[:, 0], index.digests[:, 1], json.dumps(index.names))


def differences(before: Content, index: ImageIndex, bad: Collection[str] = ()) -> list[str]:
    """Return in words what of a split is no longer as it was; nothing if all is.

    Args:
        before: what it held.
        index: the split as it is.
        bad: paths of images that were known to be damaged: that their bytes are others changed nothing.
    """
    now = content_of(index)
    if now.digest() == before.digest():
        return []
    was = {path: i for i, path in enumerate(before.paths.tolist())}
    added, swapped, relabelled = list[str](), list[str](), list[str]()
    for i, path in enumerate(now.paths.tolist()):
        j = was.get(path)
        if j is None:
            added.append(index.path(i))
            continue
        if now.images[i] != before.images[j] and index.path(i) not in bad:
            swapped.append(index.path(i))
        if now.labels[i] != before.labels[j]:
            relabelled.append(index.path(i))
    gone = len(set(was) - set(now.paths.tolist()))
    told = [_counted("other bytes in", swapped), _counted("other labels of", relabelled), _counted("new:", added)]
    told.append(f"gone: {gone:,} image{'s' if gone > 1 else ''}" if gone else "")
    told.append("other class names" if now.names != before.names else "")
    found = [text for text in told if text]
    same = np.array_equal(now.paths, before.paths)
    return found if found or same else ["the order or number of images"]


def _counted(what: str, paths: list[str]) -> str:
    if not paths:
        return ""
    shown = ", ".join(map(os.path.basename, paths[:_NAMED])) + (", ..." if len(paths) > _NAMED else "")
    return f"{what} {len(paths):,} image{'s' if len(paths) > 1 else ''} ({shown})"


def save_contents(file: Path, contents: dict[str, Content]) -> None:
    """Write what the splits hold, as plain arrays.

    Raises:
        OSError: it cannot be written.
    """
    arrays = {f"{split} {part}": getattr(content, part) for split, content in contents.items() for part in _PARTS}
    names = {f"{split} names": np.array(content.names) for split, content in contents.items()}
    with replacing(file) as handle:
        np.savez(handle, **arrays, **names)  # type: ignore[arg-type]  # the stubs take a keyword for its own


def load_contents(file: Path) -> dict[str, Content]:
    """Read what `save_contents` wrote; nothing if it is not there, or not sound."""
    try:
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            splits = dict.fromkeys(name.partition(" ")[0] for name in stored)
            return {
                split: Content(
                    stored[f"{split} paths"],
                    stored[f"{split} images"],
                    stored[f"{split} labels"],
                    str(stored[f"{split} names"]),
                )
                for split in splits
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
