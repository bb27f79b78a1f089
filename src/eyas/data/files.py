"""Finding images (spec core E.2)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# Spec E.2.
IMAGE_SUFFIXES = frozenset(
    (".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")
)


class FileStat(NamedTuple):
    """Size in bytes and modification time in ns; (-1, 0) for a file that is not there."""

    size: int
    mtime_ns: int


ABSENT = FileStat(-1, 0)


def stat_of(entry: os.DirEntry[str] | str) -> FileStat:
    """What a file looks like from outside: two that are alike in this are taken as the same."""
    try:
        info = entry.stat() if isinstance(entry, os.DirEntry) else os.stat(entry)
    except OSError:
        return ABSENT
    return FileStat(info.st_size, info.st_mtime_ns)


def _walk(folder: str) -> Iterator[os.DirEntry[str]]:
    """Files below `folder`. Hidden ones are skipped (macOS leaves `._name.jpg` beside images)."""
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if entry.is_symlink() and os.path.realpath(folder).startswith(os.path.realpath(entry.path)):
                continue  # a link to a parent would never end
            yield from _walk(entry.path)
        else:
            yield entry


def list_images(sources: Sequence[str | Path]) -> list[tuple[str, FileStat]]:
    """Images of all sources as (absolute path, stat), sorted by path.

    A source is a folder (searched recursively), an image, or a `.txt` file with one path per line (UTF-8, BOM allowed,
    blank lines ignored; relative paths start at the list's folder). A listed file that is missing has stat `ABSENT`;
    a line repeated in a list is an image seen twice, which is how people oversample.

    Raises:
        ValueError: a source does not exist or is of no known kind.
    """
    found: list[tuple[str, FileStat]] = []
    for source in map(Path, sources):
        if source.is_dir():
            entries = _walk(str(source.absolute()))
            found += [(e.path, stat_of(e)) for e in entries if _suffix(e.name) in IMAGE_SUFFIXES]
        elif source.suffix.lower() == ".txt" and source.is_file():
            found += [(path, stat_of(path)) for path in _read_list(source)]
        elif source.suffix.lower() in IMAGE_SUFFIXES and source.is_file():
            found.append((str(source.absolute()), stat_of(str(source))))
        else:
            raise ValueError(f"Image source {source} is neither a folder, a .txt list of images nor an image.")
    return sorted(found)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _read_list(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"Image list {path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    folder = str(path.absolute().parent)
    return [os.path.normpath(os.path.join(folder, line.strip())) for line in lines if line.strip()]
