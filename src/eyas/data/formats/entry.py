"""What a description says of a split whose labels do not stand beside its images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from eyas.data.files import (
    ABSENT,
    IMAGE_SUFFIXES,
    UNLISTED,
    UNLISTED_SUFFIXES,
    FileStat,
    Some,
    is_folder,
    stat_of,
)
from eyas.data.odd_names import (
    ABSOLUTE_PATH,
    OTHER_FORM,
    WINDOWS_PATH,
    OddNames,
    Spellings,
    is_absolute,
    slashed,
    tails_of,
)
from eyas.data.report import lost_kind
from eyas.files import expanded
from eyas.names import did_you_mean

OUTSIDE = lost_kind("path out of the data set")
NOT_ANNOTATED = "image that the annotations do not name"
_ASKED = 32  # images that tell which folder they stand in
_PREFIXES, _SUFFIXES = ("instances_",), ("_annotations.coco", ".coco")


@dataclass(frozen=True)
class Entry:
    """One split.

    Attributes:
        annotations: the file, or the folder of files.
        images: the folder that the images' names start from; None: found, see `image_folder`.
        split: of the lines of an NDJSON file, those of this split; "" for all.
        list: a text file of the names, one a line, of the files of a folder of VOC that make up the split.
        from_1: whether the corners in VOC files count pixels from 1, as the files of the contest itself do.
    """

    annotations: Path
    images: Path | None = None
    split: str = ""
    list: Path | None = None
    from_1: bool = False

    def check(self, *used: str) -> Entry:
        """Refuse what a format has no use for.

        Raises:
            ValueError: names it.
        """
        for key in ("split", "list", "from_1"):
            if getattr(self, key) and key not in used:
                raise ValueError(f"{self.annotations}: the key {key!r} has no effect on annotations of this kind.")
        return self


def read_entry(entry: object, root: Path) -> Entry | None:
    """Return what a description says of a split, a path or a mapping with the keys of `Entry`; None for anything else.

    Raises:
        ValueError: a mapping with keys or values that mean nothing.
    """
    if isinstance(entry, str | Path):
        return Entry(root / expanded(entry))
    if not isinstance(entry, Mapping):
        return None
    keys = [field.name for field in fields(Entry)]
    for key in entry:
        if key not in keys:
            raise ValueError(
                f"{dict(entry)}: unknown key {key!r}; known are {', '.join(keys)}.{did_you_mean(key, keys)}"
            )
    paths: dict[str, Path | None] = {"images": None, "list": None}
    for key in ("annotations", "images", "list"):
        value = entry.get(key)
        if not isinstance(value, str | Path) and (key == "annotations" or value is not None):
            raise ValueError(f"{dict(entry)}: {key}={value!r} must be a path.")
        if value is not None:
            paths[key] = root / expanded(str(value))
    split, from_1 = entry.get("split", ""), entry.get("from_1", False)
    if not isinstance(split, str) or not isinstance(from_1, bool):
        raise ValueError(f"{dict(entry)}: split is the name of one, from_1 is true or false.")
    annotations = paths["annotations"]
    assert annotations is not None
    return Entry(annotations, paths["images"], split, paths["list"], from_1)


def image_folder(entry: Entry, root: Path, names: Sequence[str]) -> Path:
    """Return the folder from which the names of images lead to files: the one given, or the likeliest of
    `likely_folders`."""
    if entry.images is not None:
        return entry.images
    asked = [name.replace("\\", "/") for name in names[:: max(len(names) // _ASKED, 1)]]
    likely, spellings = likely_folders(entry.annotations, root), Spellings()
    there = [sum(os.path.isfile(folder / name) for name in asked) for folder in likely]
    if not any(there):
        there = [sum(spellings.find(str(folder / name)) != "" for name in asked) for folder in likely]
    return likely[there.index(max(there))]


def likely_folders(annotations: Path, root: Path) -> list[Path]:
    """Where images of an annotation file or folder usually stand, the likeliest first."""
    above, stem = annotations.parent, annotations.name if os.path.isdir(annotations) else annotations.stem
    for prefix in _PREFIXES:
        stem = stem.removeprefix(prefix)
    for suffix in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    inner = [annotations] if os.path.isdir(annotations) else []
    bases = [*inner, above, *([above.parent] if os.path.abspath(above) != os.path.abspath(root) else []), root]
    stems = dict.fromkeys((stem, stem.rstrip("0123456789")))  # train2017, train
    below = [
        "",
        "images",
        "JPEGImages",
        *(f"{place}{stem}" for stem in stems for place in ("", "images/", "JPEGImages/")),
    ]
    found = dict.fromkeys(base / name for base in bases for name in below)
    return [folder for folder in found if os.path.isdir(folder)] or [above]


class Images:
    """Finds images by the names that annotations give them, listing each folder once.

    Attributes:
        odd: names that are not relative paths with `/`, or are odd otherwise.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = os.path.abspath(folder), os.path.abspath(root)
        self.odd = OddNames()
        self._spellings = Spellings()
        self._folders: dict[str, dict[str, FileStat]] = {}

    def find(self, name: str) -> tuple[str, FileStat]:
        """Absolute path and stat of an image; `ABSENT` for one that is not there, or that may not be used."""
        text = slashed(name)
        if text != name and self._stat(os.path.join(self.folder, name)) != ABSENT:
            text = name
        if text != name:
            self.odd.add(WINDOWS_PATH, "read with / between folders", name)
        if is_absolute(text):
            return self._absolute(text, name)
        path = os.path.normpath(os.path.join(self.folder, text))
        if not any(self._within(path, base) for base in (self.folder, self.root)):
            self.odd.add(OUTSIDE, f"not used: they lead out of {self.root}", name)
            return path, ABSENT
        stat = self._stat(path)
        if stat == ABSENT and (other := self._spellings.find(path)):
            self.odd.add(OTHER_FORM, "found by the letters that it shows", name)
            return other, self._stat(other)
        return path, stat

    def folders(self) -> list[str]:
        """Folders that hold images, or would."""
        return sorted(self._folders)

    def others(self, found: Iterable[str], named: Iterable[str] = ()) -> dict[str, Some]:
        """What lies beside the images that were found and is neither one of them nor otherwise named, by the reason:
        images, and such of formats that are not read."""
        known = set(found)
        holding = {os.path.dirname(path) for path in known}
        known.update(named)
        others: dict[str, Some] = {}
        for folder in sorted(holding & {*self._folders}):
            for name in sorted(self._folders[folder]):
                path, suffix = os.path.join(folder, name), os.path.splitext(name)[1].lower()
                if name[:1] == "." or path in known:
                    continue
                if suffix in IMAGE_SUFFIXES:
                    others.setdefault(NOT_ANNOTATED, Some()).add(path)
                elif suffix in UNLISTED_SUFFIXES:
                    others.setdefault(f"{UNLISTED} ({suffix})", Some()).add(path)
        return others

    def _absolute(self, text: str, name: str) -> tuple[str, FileStat]:
        """An absolute path as it stands; or what lies below the folder under the same name, or with folders before."""
        stat = self._stat(text) if os.path.isabs(text) else ABSENT
        if stat != ABSENT:
            self.odd.add(ABSOLUTE_PATH, "used as they are", name)
            return os.path.normpath(text), stat
        below = [os.path.join(self.folder, tail) for tail in tails_of(text)]
        for path in below:
            if (stat := self._stat(path)) != ABSENT:
                self.odd.add(ABSOLUTE_PATH, f"not there, and looked for in {self.folder}", name)
                return path, stat
        return next(iter(below), self.folder), ABSENT

    @staticmethod
    def _within(path: str, base: str) -> bool:
        return path.startswith(base.rstrip(os.sep) + os.sep)

    def _stat(self, path: str) -> FileStat:
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = _list_files(folder)
        found = self._folders[folder].get(name)
        return stat_of(path) if found is None and os.path.isfile(path) else found or ABSENT


def _list_files(folder: str) -> dict[str, FileStat]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: stat_of(entry) for entry in entries if not is_folder(entry)}
    except OSError:
        return {}
