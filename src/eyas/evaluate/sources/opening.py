"""Telling apart what people predict on, before anything is read."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eyas.data.files import IMAGE_SUFFIXES, files_below, lines_of
from eyas.evaluate.sources.address import Address
from eyas.evaluate.sources.base import Item, Reading
from eyas.evaluate.sources.images import ImageFile, Pixels
from eyas.evaluate.sources.screen import PATTERN, Screen
from eyas.evaluate.sources.stream import SCHEMES, Stream
from eyas.evaluate.sources.video import VIDEO_SUFFIXES, Video
from eyas.log import LOGGER

LISTS = (".txt",)
MUCH = 1 << 30  # bytes of frames that a list of results holds


def open_source(source: Any, reading: Reading | None = None) -> list[Item]:
    """Find everything that a source names; it is read later, picture by picture.

    Args:
        source: an image or video file, a folder (searched through, hidden files skipped), a glob such as
            `shots/*.png`, a `.txt` list of any of these (one a line; relative ones start at the list's folder), an
            http(s) address of an image or video, a webcam's number, the address of a stream (`rtsp://...`), `screen`,
            an array (h, w, 3) uint8 BGR or (h, w) grey, a PIL image, or a list of any of these.
        reading: how it is read.

    Raises:
        FileNotFoundError: a file or folder does not exist, or a glob finds nothing.
        ValueError: a folder or list with nothing in it, an array of another shape or type, something else.
    """
    reading = reading or Reading()
    if isinstance(source, list | tuple):
        if not source:
            raise ValueError("the list of images is empty: give at least one file, array or PIL image")
        items: list[Item] = []
        for entry in source:
            items += _named(entry, reading) if _is_name(entry) else [_pixels(entry, len(items))]
        return items
    if _is_name(source):
        return _named(source, reading)
    if isinstance(source, np.ndarray) and source.ndim == 4:
        raise ValueError(f"an array of shape {source.shape} holds several images: give list(array) instead")
    return [Pixels(source, "image0", "the array")]


def finds_files(source: Any) -> bool:
    """Whether a source, or one in a list, is a folder, a glob or a list: what is in it was not named one by one."""
    if isinstance(source, list | tuple):
        return any(finds_files(entry) for entry in source)
    if not isinstance(source, str | os.PathLike):
        return False
    path = os.fspath(source)
    if os.path.isfile(path):
        return Path(path).suffix.lower() in LISTS
    return os.path.isdir(path) or ("://" not in path and glob.has_magic(path))


def check_listable(items: Sequence[Item]) -> None:
    """Look at what a list of all results would hold, and say in one line where that is much.

    Raises:
        ValueError: an item goes on until somebody stops it, so that the list would never be there.
    """
    for item in items:
        if item.live:
            raise ValueError(f"{item.name} never ends, and so does a list of its results: give stream=True and loop")
    heaviest, size = max(((item, item.memory()) for item in items), key=lambda pair: pair[1])
    if size > MUCH:
        LOGGER.warning(
            "a list of results keeps every frame: %.1f GB for %s alone; stream=True needs no memory",
            size / 2**30, heaviest.name,
        )  # fmt: skip


def _is_name(source: Any) -> bool:
    return isinstance(source, str | os.PathLike | int) and not isinstance(source, bool)


def _pixels(image: Any, number: int) -> Pixels:
    return Pixels(image, f"image{number}", f"item {number} of the list")


def _named(name: str | os.PathLike[str] | int, reading: Reading) -> list[Item]:
    """What a text, path or number names."""
    if isinstance(name, int):
        return [Stream(name, reading.vid_stride, buffer=reading.stream_buffer)]
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        return _folder(path, reading)
    if os.path.isfile(path):
        return _list(path, reading) if Path(path).suffix.lower() in LISTS else [_file(path, reading)]
    if path.isdecimal():
        return _named(int(path), reading)
    if PATTERN.fullmatch(path):
        return [Screen(path, reading.vid_stride)]
    if "://" in path:
        return [_address(path, reading)]
    if glob.has_magic(path):
        return _glob(path, reading)
    raise FileNotFoundError(f"there is no file or folder {path} (looked in {os.getcwd()})")


def _file(path: str, reading: Reading) -> Item:
    if Path(path).suffix.lower() in VIDEO_SUFFIXES:
        return Video(path, reading.vid_stride)
    return ImageFile(path, reading.white)


def _known(path: str) -> bool:
    return Path(path).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _folder(path: str, reading: Reading) -> list[Item]:
    files = sorted(filter(_known, files_below(path)))
    if not files:
        known = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
        raise ValueError(f"there is no image or video in the folder {path}: known are {known}")
    return [_file(file, reading) for file in files]


def _glob(path: str, reading: Reading) -> list[Item]:
    files = sorted(file for file in glob.glob(path, recursive=True) if _known(file) and os.path.isfile(file))
    if not files:
        raise FileNotFoundError(f"the pattern {path} finds no image or video")
    return [_file(file, reading) for file in files]


def _list(path: str, reading: Reading) -> list[Item]:
    """What the lines of a text file name, in their order."""
    folder = os.path.dirname(os.path.abspath(path))
    items: list[Item] = []
    for line in lines_of(Path(path)):
        place = line if "://" in line else os.path.normpath(os.path.join(folder, line))
        if Path(place).suffix.lower() in LISTS:
            raise ValueError(f"the list {path} names the list {place}: a list holds images, videos and addresses")
        items += (
            [ImageFile(place)] if not _is_there(place) else _named(place, reading)
        )  # reading it tells what is missing
    if not items:
        raise ValueError(f"the list {path} is empty: write one file, folder or address a line")
    return items


def _is_there(place: str) -> bool:
    return "://" in place or os.path.exists(place) or glob.has_magic(place)


def _address(text: str, reading: Reading) -> Item:
    scheme = text.partition("://")[0].lower()
    if scheme in ("http", "https"):
        return Address(text, reading)
    if scheme in SCHEMES:
        return Stream(text, reading.vid_stride, buffer=reading.stream_buffer)
    known = ", ".join(("http", "https", *SCHEMES))
    raise ValueError(f"{text}: addresses of {scheme}:// are not read; those of {known} are")
