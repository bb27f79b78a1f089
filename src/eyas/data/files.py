"""Finding images (spec core E.2)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# Spec E.2, and what else cameras, browsers and scanners write.
IMAGE_SUFFIXES = frozenset((
    ".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp",
    ".apng", ".avifs", ".dib", ".gif", ".hif", ".j2c", ".j2k", ".jfif", ".jif", ".jpe", ".jpf", ".jpx", ".pbm", ".pgm",
    ".pjp", ".pjpeg", ".pnm", ".ppm", ".tga",
))  # fmt: skip
HIDDEN = "hidden file"
HIDDEN_FOLDER = "hidden folder"
# First bytes of images: one that was given another suffix is told apart from files that are none.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)  # the second is Windows' own
_PIECE = 8192  # bytes; room for more takes longer to get than such a file takes to read
_NEVER_IMAGES = frozenset((".txt", ".xml", ".json", ".csv"))  # labels, of which there may be as many as images


class FileStat(NamedTuple):
    """Size in bytes and modification time in ns; (-1, 0) for a file that is not there."""

    size: int
    mtime_ns: int


ABSENT = FileStat(-1, 0)
NO_FILE = FileStat(-2, 0)  # something is there under the name, but no file: a folder, a link to what is not there


class Listing(NamedTuple):
    """Images, and what else lies among them.

    Attributes:
        images: (absolute path, stat), sorted by path.
        passed_over: {(folder, why): number} of files that are not taken for images.
        watched: folders and lists that change when an image comes, goes or gets another name.
    """

    images: list[tuple[str, FileStat]]
    passed_over: Counter[tuple[str, str]]
    watched: set[str]


def stat_of(entry: os.DirEntry[str] | str) -> FileStat:
    """What a file looks like from outside: two that are alike in this are taken as the same."""
    try:
        info = entry.stat() if isinstance(entry, os.DirEntry) else os.stat(entry)
    except OSError:
        return ABSENT
    return FileStat(info.st_size, info.st_mtime_ns)


def read_ends(path: str, first: int, last: int) -> tuple[bytes, bytes]:
    """The first and the last bytes of a file; both are all of it, where there are no more.

    Raises:
        OSError: it cannot be read.
    """
    file = os.open(path, _READ)  # a third of the time that a file object takes, of which a scan would make millions
    try:
        start = os.read(file, first)
        size = os.lseek(file, 0, os.SEEK_END)
        if size <= len(start):
            return start, start[-last:]
        os.lseek(file, max(size - last, 0), os.SEEK_SET)
        return start, os.read(file, last)
    finally:
        os.close(file)


def read_whole(path: str) -> bytes:
    """All bytes of a small file.

    Raises:
        OSError: it cannot be read.
    """
    file = os.open(path, _READ)
    try:
        return b"".join(iter(lambda: os.read(file, _PIECE), b""))
    finally:
        os.close(file)


def what_is_there(path: str) -> str:
    """What stands at a path where a file should."""
    if os.path.isdir(path):
        return "a folder, not a file"
    return "not a file" if os.path.exists(path) else "a link to a file that is not there"


def _walk(folder: str, entered: set[str]) -> Iterator[os.DirEntry[str]]:
    """Files below `folder`, and hidden folders, which are not entered; those that are go into a set."""
    entered.add(folder)
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        if entry.is_dir() and not is_hidden(entry):
            if entry.is_symlink() and os.path.realpath(folder).startswith(os.path.realpath(entry.path)):
                continue  # a link to a parent would never end
            yield from _walk(entry.path, entered)
        else:
            yield entry


def files_below(folder: str) -> Iterator[str]:
    """Paths of all files below a folder, without hidden ones and those in hidden folders."""
    return (entry.path for entry in _walk(os.path.abspath(folder), set()) if not is_hidden(entry))


def is_hidden(entry: os.DirEntry[str]) -> bool:
    """Whether it is hidden by its name (macOS leaves `._name.jpg` beside images)."""
    return entry.name.startswith(".")


def why_no_image(entry: os.DirEntry[str]) -> str:
    """Why a file of a folder is not taken for an image, in a few words; empty for one that is."""
    if is_hidden(entry):
        return HIDDEN_FOLDER if entry.is_dir() else HIDDEN
    suffix = _suffix(entry.name)
    if suffix in IMAGE_SUFFIXES:
        return ""
    disguised = suffix not in _NEVER_IMAGES and _starts_like_an_image(entry.path)
    return f"{'image under another suffix' if disguised else 'not an image'} ({suffix or 'no suffix'})"


def _starts_like_an_image(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(_SIGNATURES) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def list_images(sources: Sequence[str | Path]) -> list[tuple[str, FileStat]]:
    """Images of all sources as (absolute path, stat), sorted by path; see `list_files`."""
    return list_files(sources).images


def list_files(sources: Sequence[str | Path], root: Path | None = None) -> Listing:
    """Images of all sources, and how many files of their folders are none.

    A source is a folder (searched recursively), an image, or a `.txt` file with one path per line (UTF-8, BOM allowed,
    blank lines ignored; relative paths start at the list's folder, or at `root` where they lead nowhere from there). A
    listed file that is missing has stat `ABSENT`; a line repeated in a list is an image seen twice, which is how
    people oversample.

    Raises:
        ValueError: a source does not exist or is of no known kind.
    """
    found: list[tuple[str, FileStat]] = []
    passed_over: Counter[tuple[str, str]] = Counter()
    watched: set[str] = set()
    for source in map(Path, sources):
        if source.is_dir():
            for entry in _walk(str(source.absolute()), watched):
                if why := why_no_image(entry):
                    passed_over[os.path.dirname(entry.path), why] += 1
                else:
                    found.append((entry.path, stat_of(entry)))
        elif source.suffix.lower() == ".txt" and source.is_file():
            listed = _listed(source, root)
            folders = {os.path.dirname(path) for path, _ in listed}
            watched |= {str(source.absolute()), *map(nearest_folder, folders)}
            found += listed
        elif source.suffix.lower() in IMAGE_SUFFIXES and source.is_file():
            found.append((str(source.absolute()), stat_of(str(source))))
            watched.add(os.path.dirname(source.absolute()))
        else:
            raise ValueError(f"Image source {source} is neither a folder, a .txt list of images nor an image.")
    return Listing(sorted(found), passed_over, watched)


def nearest_folder(path: str) -> str:
    """The folder at a path, or the nearest above it that is there, which changes when the one at the path is made."""
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _listed(path: Path, root: Path | None) -> list[tuple[str, FileStat]]:
    """The images that a list names, with their stat."""
    folders = [str(path.absolute().parent), *([str(root.absolute())] if root else [])]
    found = []
    for line in lines_of(path):
        places = [os.path.normpath(os.path.join(folder, line)) for folder in folders]
        seen = [(place, stat_of(place)) for place in places]
        found.append(next((image for image in seen if image[1] != ABSENT), seen[0]))
    return found


def lines_of(path: Path) -> list[str]:
    """The lines of a list that say something, without the blanks around them.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"Image list {path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    return [line.strip() for line in lines if line.strip()]
