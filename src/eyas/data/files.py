"""Finding images (spec core E.2)."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from eyas.data.odd_names import OTHER_FORM, OddNames, Spellings, other_ways
from eyas.files import open_regular, opened, what_is_there

# Spec E.2, and what else cameras, browsers and scanners write.
IMAGE_SUFFIXES = frozenset((
    ".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp",
    ".apng", ".avifs", ".dib", ".gif", ".hif", ".j2c", ".j2k", ".jfif", ".jif", ".jpe", ".jpf", ".jpx", ".pbm", ".pgm",
    ".pjp", ".pjpeg", ".pnm", ".ppm", ".tga",
))  # fmt: skip
HIDDEN = "hidden file"
HIDDEN_FOLDER = "hidden folder"
NO_IMAGE = "not an image"
DISGUISED = "image under another suffix"
UNLISTED = "image of a format that is not read"
NAMED = 20  # files of a kind that are named; all are counted
# What other tools call images, and Eyas does not read.
UNLISTED_SUFFIXES = frozenset((
    ".arw", ".cr2", ".cr3", ".dcm", ".exr", ".fits", ".hdr", ".icns", ".ico", ".jxl", ".nef", ".orf", ".pam", ".pcx",
    ".pfm", ".psd", ".raf", ".ras", ".raw", ".rw2", ".sgi", ".sr", ".svg", ".xcf",
))  # fmt: skip
# First bytes of images: one that was given another suffix is told apart from files that are none.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_LARGEST_TEXT = 2**26  # bytes of a label file: a million rows
_READ = 8192  # bytes; room for more takes longer to get than a label file takes to read
_PIECE = 4096  # bytes of a sample's pieces: with twice as much, a sample and its digest take 60 us instead of 35
_SAMPLED = 5 * _PIECE  # bytes up to which a file is looked at whole
_ENTERED = 8  # times that one folder is read under several names: links to links to links stand for millions of paths
_NEVER_IMAGES = frozenset((".txt", ".xml", ".json", ".csv"))  # labels, of which there may be as many as images


class FileStat(NamedTuple):
    """Size in bytes and modification time in ns; (-1, 0) for a file that is not there."""

    size: int
    mtime_ns: int


ABSENT = FileStat(-1, 0)
NO_FILE = FileStat(-2, 0)  # something is there under the name, but no file that can be read, see `what_is_there`


@dataclass
class Some:
    """How many files there are of a kind, and the paths of the first."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, path: str) -> None:
        """Count one more."""
        self.count += 1
        if self.count <= NAMED:
            self.first.append(path)

    def __add__(self, other: Some) -> Some:
        """Both together."""
        return Some(self.count + other.count, [*self.first, *other.first][:NAMED])


def counts_of(found: Mapping[str, Some]) -> Counter[str]:
    """{reason: number} of files by the reason."""
    return Counter({why: some.count for why, some in found.items()})


def names_of(found: Mapping[str, Some]) -> dict[str, list[str]]:
    """{reason: paths of the first} of files by the reason."""
    return {why: list(some.first) for why, some in found.items()}


class Listing(NamedTuple):
    """Images, and what else lies among them.

    Attributes:
        images: (absolute path, stat), sorted by path.
        passed_over: {(folder, why): how many, and the first} of what is not taken for images.
        watched: folders and lists that change when an image comes, goes or gets another name.
        odd: {list: names in it that lead to a file in another way than they are written}.
    """

    images: list[tuple[str, FileStat]]
    passed_over: dict[tuple[str, str], Some]
    watched: set[str]
    odd: Mapping[str, OddNames]


def stat_of(entry: os.DirEntry[str] | str) -> FileStat:
    """What a file looks like from outside: two that are alike in this are taken as the same.

    `NO_FILE` is what a folder, FIFO, socket, device or broken link looks like.
    """
    try:
        info = entry.stat() if isinstance(entry, os.DirEntry) else os.stat(entry)
    except OSError:
        return NO_FILE if os.path.lexists(entry) else ABSENT
    return FileStat(info.st_size, info.st_mtime_ns) if stat.S_ISREG(info.st_mode) else NO_FILE


def sample_of(path: str) -> bytes:
    """The size of a file, and its bytes: all of a small one, and of others the ends and three pieces between.

    What differs between two images of one size differs there too, but for single pixels changed by hand in a file that
    is not compressed.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    return read_start_and_sample(path, _PIECE)[1]


def read_start_and_sample(path: str, first: int) -> tuple[bytes, bytes]:
    """The first bytes of a file, at least a piece of a sample, and what `sample_of` returns, by opening it once.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    file = open_regular(path)  # a third of the time that a file object takes, of which a scan would make millions
    try:
        size = os.fstat(file).st_size
        start = os.read(file, max(first, min(size, _SAMPLED)))
        if size <= _SAMPLED:
            pieces = [start, *iter(lambda: os.read(file, _PIECE), b"")]
        else:
            pieces = [start[:_PIECE]]
            for quarter in range(1, 5):
                os.lseek(file, quarter * (size - _PIECE) // 4, os.SEEK_SET)
                pieces.append(os.read(file, _PIECE))
        return start, size.to_bytes(8, "little") + b"".join(pieces)
    finally:
        os.close(file)


def read_whole(path: str) -> bytes:
    """All bytes of a small file.

    Raises:
        OSError: it cannot be read, is no file, or has more than 64 MiB.
    """
    file = open_regular(path)
    try:
        if os.fstat(file).st_size > _LARGEST_TEXT:
            raise OSError(errno.EFBIG, f"more than {_LARGEST_TEXT >> 20} MiB, which no such file needs", path)
        return b"".join(iter(lambda: os.read(file, _READ), b""))
    finally:
        os.close(file)


PassOver = Callable[[str, str], None]
"""Takes a path, and why it is passed over."""


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link that leads in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _walk(folder: str, entered: set[str], pass_over: PassOver) -> Iterator[os.DirEntry[str]]:
    """Files below `folder`, and hidden folders, which are not entered; those that are go into a set.

    Folders that are not read, below the first, are told to `pass_over` with the reason: one that cannot be listed, a
    link to a folder above it, and what several links lead to again and again.
    """
    times: Counter[tuple[int, int]] = Counter()
    # Each with the real folders around it. A stack and no recursion: folders may lie deeper in each other than calls.
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(folder, _folders_above(folder))]
    while waiting:
        place, around = waiting.pop()
        try:
            info = os.stat(place)
            with os.scandir(place) as entries:
                listed = list(entries)
        except OSError as error:
            if place == folder:
                raise
            pass_over(place, f"folder that cannot be listed ({error.strerror or error})")
            continue
        own = info.st_dev, info.st_ino
        if own in around and info.st_ino:  # without numbers, on some network disks of Windows, there is no telling
            pass_over(place, "link to a folder around it")
            continue
        times[own] += 1
        if times[own] > _ENTERED and info.st_ino:
            pass_over(place, f"folder that was read {_ENTERED} times under other names")
            continue
        entered.add(place)
        inner = []
        for entry in listed:
            if is_folder(entry) and not is_hidden(entry):
                inner.append(entry.path)
            else:
                yield entry
        within = around | {own}
        waiting += [(path, within) for path in sorted(inner, reverse=True)]


def _folders_above(folder: str) -> frozenset[tuple[int, int]]:
    """The real folders around a folder, up to the root: a link to one of them leads through all of it, and back."""
    above = Path(os.path.realpath(folder)).parents
    return frozenset((info.st_dev, info.st_ino) for info in map(os.stat, above))


def files_below(folder: str, pass_over: PassOver = lambda path, why: None) -> Iterator[str]:
    """Paths of all files below a folder, without hidden ones and those in hidden folders.

    Folders that cannot be read are told to `pass_over`, with the reason.
    """
    return (entry.path for entry in _walk(os.path.abspath(folder), set(), pass_over) if not is_hidden(entry))


def is_hidden(entry: os.DirEntry[str]) -> bool:
    """Whether it is hidden by its name (macOS leaves `._name.jpg` beside images)."""
    return entry.name.startswith(".")


def why_no_image(entry: os.DirEntry[str]) -> str:
    """Why a file of a folder is not taken for an image, in a few words; empty for one that is."""
    if is_hidden(entry):
        return HIDDEN_FOLDER if is_folder(entry) else HIDDEN
    suffix = _suffix(entry.name)
    if suffix in IMAGE_SUFFIXES:
        return ""
    return f"{NO_IMAGE if suffix in _NEVER_IMAGES else what_else(entry.path)} ({suffix or 'no suffix'})"


def what_else(path: str) -> str:
    """What a file is whose suffix is not that of an image we read, in a few words."""
    try:
        with opened(path) as file:
            start = file.read(12)
    except OSError:
        return what_is_there(path)
    if start.startswith(_SIGNATURES) or (start[:4] == b"RIFF" and start[8:] == b"WEBP"):
        return DISGUISED
    return UNLISTED if _suffix(path) in UNLISTED_SUFFIXES else NO_IMAGE


def list_images(sources: Sequence[str | Path]) -> list[tuple[str, FileStat]]:
    """Images of all sources as (absolute path, stat), sorted by path; see `list_files`."""
    return list_files(sources).images


def list_files(sources: Sequence[str | Path], root: Path | None = None) -> Listing:
    """Images of all sources, and how many files of their folders are none.

    A source is a folder (searched recursively), an image, or a `.txt` file with one path per line (UTF-8, BOM allowed,
    blank lines ignored; relative paths start at the list's folder, or at `root` where they lead nowhere from there, and
    may be written as in `eyas.data.odd_names`). A listed file that is missing has stat `ABSENT`; a line repeated in a
    list is an image seen twice, which is how people oversample.

    Raises:
        ValueError: a source does not exist or is of no known kind.
    """
    found: list[tuple[str, FileStat]] = []
    passed_over: dict[tuple[str, str], Some] = defaultdict(Some)
    watched: set[str] = set()
    odd: dict[str, OddNames] = {}

    def pass_over(path: str, why: str) -> None:
        passed_over[os.path.dirname(path), why].add(path)

    for source in map(Path, sources):
        if source.is_dir():
            for entry in _walk(str(source.absolute()), watched, pass_over):
                if why := why_no_image(entry):
                    pass_over(entry.path, why)
                else:
                    found.append((entry.path, stat_of(entry)))
        elif source.suffix.lower() == ".txt" and source.is_file():
            listed = _listed(source, root, odd.setdefault(str(source.absolute()), OddNames()))
            folders = {os.path.dirname(path) for path, _ in listed}
            watched |= {str(source.absolute()), *map(nearest_folder, folders)}
            found += listed
        elif source.suffix.lower() in IMAGE_SUFFIXES and os.path.lexists(source):
            found.append((str(source.absolute()), stat_of(str(source))))
            watched.add(os.path.dirname(source.absolute()))
        else:
            raise ValueError(f"Image source {source} is neither a folder, a .txt list of images nor an image.")
    return Listing(sorted(found), passed_over, watched, odd)


def nearest_folder(path: str) -> str:
    """The folder at a path, or the nearest above it that is there, which changes when the one at the path is made."""
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def without_suffix(path: str) -> str:
    """The same as ``os.path.splitext(path)[0]``, in a third of the time: an index asks it of millions of paths."""
    stem, dot, suffix = path.rpartition(".")
    plain = dot and not stem.endswith((".", "/", os.sep)) and "/" not in suffix and os.sep not in suffix
    return stem if plain and stem else os.path.splitext(path)[0]


def _suffix(name: str) -> str:
    return name[len(without_suffix(name)) :].lower()


def _listed(path: Path, root: Path | None, odd: OddNames) -> list[tuple[str, FileStat]]:
    """The images that a list names, with their stat."""
    folders = [str(path.absolute().parent), *([str(root.absolute())] if root else [])]
    spellings, found = Spellings(), []
    for line in lines_of(path):
        image = _first_there(folders, line)
        if image[1] == ABSENT:
            image = _found_otherwise(folders, line, spellings, odd) or image
        found.append(image)
    return found


def _first_there(folders: Sequence[str], name: str) -> tuple[str, FileStat]:
    places = [os.path.normpath(os.path.join(folder, name)) for folder in folders]
    seen = [(place, stat_of(place)) for place in places]
    return next((image for image in seen if image[1] != ABSENT), seen[0])


def _found_otherwise(
    folders: Sequence[str], line: str, spellings: Spellings, odd: OddNames
) -> tuple[str, FileStat] | None:
    """The image that a line means which leads to none as it is written."""
    ways = [*other_ways(line)]
    for kind, what, name in ways:
        image = _first_there(folders, name)
        if image[1] != ABSENT:
            odd.add(kind, what, line)
            return image
    for name in (line, *(name for *_, name in ways)):
        for folder in folders:
            place = spellings.find(os.path.normpath(os.path.join(folder, name)))
            if place:
                odd.add(OTHER_FORM, "found by the letters that it shows", line)
                return place, stat_of(place)
    return None


def lines_of(path: Path) -> list[str]:
    """The lines of a list that say something, without the blanks around them.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        with opened(path) as file:
            lines = file.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"Image list {path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    return [line.strip() for line in lines if line.strip()]
