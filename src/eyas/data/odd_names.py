"""Names that lead to no file as they are written, and the files that they mean all the same."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from unicodedata import normalize

from eyas.data.report import Problem, kept_kind

WINDOWS_PATH = kept_kind("path as Windows writes it")
BELOW_DATA = kept_kind("path with data/ before it")
OTHER_FORM = kept_kind("name in another Unicode form")
ABSOLUTE_PATH = kept_kind("absolute path")
_DRIVE = re.compile(r"[A-Za-z]:/")
_DATA = "data/"
_LONGEST = 4096  # letters of a path that a file can have


class OddNames:
    """Names of images that are odd, by the kind and what was made of them."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[int, str]] = {}  # how many, and the first

    def add(self, kind: str, what: str, name: str) -> None:
        """Count one more."""
        count, first = self._found.get((kind, what), (0, name))
        self._found[kind, what] = count + 1, first

    def about(self, where: str) -> list[Problem]:
        """A sentence for each kind."""
        return [
            Problem(where, 0, kind, f"{count:,} of the images, such as {first}: {what}")
            for (kind, what), (count, first) in self._found.items()
        ]


def other_ways(name: str) -> Iterator[tuple[str, str, str]]:
    """(kind, what is made of it, path) of what a name may mean that leads to no file.

    CVAT's archives of YOLO 1.1 name `data/obj_train_data/a.png` for what lies in `obj_train_data`. An absolute path of
    another machine may lead on from a folder of this one, longest first: `D:/set/images/a.png` from `set`.
    """
    text = slashed(name)
    if is_absolute(text):
        for tail in tails_of(text):
            if "/" in tail:  # never by the name alone: each split may have its own 1.jpg
                yield ABSOLUTE_PATH, "not there, and looked for in the data set", tail
        return
    if text != name:
        yield WINDOWS_PATH, "read with / between folders", text
    if text.startswith(_DATA):
        yield BELOW_DATA, "read without it, as CVAT means it", text.removeprefix(_DATA)


def slashed(name: str) -> str:
    """A name with / between folders, as it must be here."""
    return name.replace("\\", "/") if os.sep == "/" else name


def is_absolute(text: str) -> bool:
    """Whether a name with / between folders is a path from the root, of this machine or of a drive of Windows."""
    return os.path.isabs(text) or _DRIVE.match(text) is not None


def tails_of(text: str) -> Iterator[str]:
    """What an absolute path is below its root or drive, below its first folder and so on, down to the file's name."""
    parts = [part for part in text.split("/")[1:] if part not in ("", ".", "..")]
    for start in range(len(parts)):
        yield "/".join(parts[start:])


def composed(name: str) -> str:
    """A name in the Unicode form in which a letter and its accent are one."""
    return name if name.isascii() else normalize("NFC", name)


class Spellings:
    """Finds files that are named in another Unicode form than they have: macOS takes letters and accents apart.

    Each folder is listed once.
    """

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, str]] = {}

    def find(self, path: str) -> str:
        """The absolute path of what is there in place of a path that is not; "" if nothing is, as for ASCII."""
        if path.isascii() or len(path) > _LONGEST:
            return ""
        folder, below = path, list[str]()
        while not os.path.isdir(folder):
            folder, name = os.path.split(folder)
            if not name:
                return ""
            below.append(composed(name))
        for name in reversed(below):
            found = self._names(folder).get(name)
            if found is None:
                return ""
            folder = os.path.join(folder, found)
        return folder

    def _names(self, folder: str) -> dict[str, str]:
        if folder not in self._folders:
            try:
                self._folders[folder] = {composed(name): name for name in os.listdir(folder)}
            except OSError:
                self._folders[folder] = {}
        return self._folders[folder]
