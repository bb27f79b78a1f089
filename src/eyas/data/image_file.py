"""The one place where bytes of images are read, whether they lie on this host or elsewhere (`eyas.data.remote`)."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np

from eyas.data.files import FileStat, sample_of
from eyas.data.remote import images
from eyas.data.remote.address import is_remote
from eyas.files import opened


def read_image_file(path: str | os.PathLike[str], indexed: FileStat | None = None) -> np.ndarray:
    """The content of an image's file, (n,) uint8.

    Args:
        path: of the image.
        indexed: what the file was from outside; where it lies elsewhere, another one is refused.

    Raises:
        OSError: it cannot be read.
        RemoteError: it lies elsewhere, and does not come or is not what it was.
    """
    name = os.fspath(path)
    if is_remote(name):
        return np.frombuffer(images.read(name, indexed), np.uint8)
    with opened(name) as file:
        return np.fromfile(file, np.uint8)


def sample_image_file(path: str, stat: FileStat) -> bytes:
    """What tells an image's file from others: see `sample_of`; of one elsewhere its size and version.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    return b"%d %d" % stat if is_remote(path) else sample_of(path)


def open_image_file(path: str, *, whole: bool = False) -> io.BufferedReader | io.BytesIO:
    """An image's file, to read in; of one elsewhere only the parts come that are read, unless the whole is wanted.

    Raises:
        OSError: it cannot be read.
        RemoteError: as `read_image_file`; reading may raise it too.
    """
    if not is_remote(path):
        return opened(path)
    return io.BytesIO(images.read(path)) if whole else images.opened(path)


def copy_image_file(path: str | os.PathLike[str], target: Path) -> None:
    """Write the content of an image's file to another one.

    Raises:
        OSError, RemoteError: as `read_image_file`.
    """
    name = os.fspath(path)
    if is_remote(name):
        target.write_bytes(images.read(name))
    else:
        shutil.copyfile(name, target)
