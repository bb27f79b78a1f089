"""Pascal VOC: an XML file for each image, boxes as corners in px, `difficult` objects as areas to ignore.

The image of `Annotations/a.xml` has the same name and lies in the same place below the folder of images; failing that,
it is the one that `filename` in the XML names. An XML file with a document type is refused: what it declares can grow
without bound.
"""

from __future__ import annotations

import codecs
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from eyas.data.files import (
    ABSENT,
    IMAGE_SUFFIXES,
    FileStat,
    PassOver,
    Some,
    counts_of,
    files_below,
    names_of,
    nearest_folder,
    stat_of,
)
from eyas.data.formats.base import ANY_CLASS, UNREADABLE, LabelProblem, Labels, LabelSource, no_labels
from eyas.data.formats.coco import NO_BOX
from eyas.data.formats.entry import Entry, Images, image_folder, likely_folders, read_entry
from eyas.data.formats.pixels import PixelRows, to_labels
from eyas.data.formats.table import UNKNOWN_CLASS
from eyas.data.image_header import ImageHeader
from eyas.data.odd_names import Spellings, composed
from eyas.data.report import Problem, lost_kind
from eyas.files import opened

SEVERAL_FILES = lost_kind("image with several files")
EVERY_CLASS = "*"
"""Name of an area to ignore whatever its class; no other tool knows it."""
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LARGEST_FILE = 1 << 24  # bytes
_DEEPEST = 32  # elements inside each other; annotations have 4
_ENCODING = re.compile(rb"""<\?xml[^>]{1,200}?\sencoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")
# By the names of Python's codecs: Chinese, Japanese and Korean. Others could take time beyond bounds, or are no text.
_WIDE = frozenset((
    "big5", "big5hkscs", "cp932", "cp949", "cp950", "euc_jis_2004", "euc_jisx0213", "euc_jp", "euc_kr", "gb18030",
    "gb2312", "gbk", "johab", "shift_jis", "shift_jis_2004", "shift_jisx0213",
))  # fmt: skip
_LOOKED_AT = 100  # files of a folder that tell what it holds


def open_voc(entry: object, root: Path, names: Mapping[int, str] | None) -> LabelSource | None:
    """Open a folder of `.xml` files, see `eyas.data.formats.Opener`. A folder that holds images too, or none of
    either, is only taken for one where the description says `annotations:`.

    Raises:
        ValueError: no names are given: files tell of the classes that they show, not of those that there are.
    """
    told = read_entry(entry, root)
    if told is None or not os.path.isdir(told.annotations):
        return None
    if not isinstance(entry, Mapping) and not _holds_only_xml(told.annotations):
        return None
    if names is None:
        raise ValueError(
            f"{told.annotations} holds files of Pascal VOC, which do not list the classes; add to the description: "
            f"names: [{', '.join(class_names(told.annotations))}]"
        )
    return VocXml(told.check("list", "from_1"), root, names)


def _holds_only_xml(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            suffixes = {os.path.splitext(entry.name)[1].lower() for entry, _ in zip(entries, range(_LOOKED_AT))}
    except OSError:  # told where its images are listed
        return False
    return ".xml" in suffixes and not suffixes & {*IMAGE_SUFFIXES, ".txt"}


def class_names(folder: Path) -> list[str]:
    """The names of all objects in the files of a folder, sorted; files that cannot be read have none.

    Raises:
        ValueError: there is no name; tells of a file that cannot be read, if that is why.
    """
    found: set[str] = set()
    unread: list[str] = []
    files = _files(folder, lambda path, why: None)
    for file in files:
        content = read_xml(file)
        if isinstance(content, LabelProblem):
            unread.append(f"{file}: {content.message}")
        else:
            found |= {item.name for item in content.objects}
    if not found - {"", EVERY_CLASS}:
        why = f" {len(unread):,} of them cannot be read: {unread[0]}." if unread else ""
        raise ValueError(f"{folder}: no object with a name stands in its {len(files):,} XML files.{why}")
    return sorted(found - {"", EVERY_CLASS})


class VocObject(NamedTuple):
    """An object: its line in the file, name ("" for none), corners as texts (None where missing), difficult."""

    line: int
    name: str
    corners: list[str | None]
    difficult: bool


class VocFile(NamedTuple):
    """What a file tells: the name of the image ("" for none), its height and width in px (0 for none), objects."""

    image: str
    size: tuple[int, int]
    objects: list[VocObject]


def read_xml(file: str) -> VocFile | LabelProblem:
    """Read a file, or tell why it cannot be. Nothing in it raises."""
    try:
        with opened(file) as handle:
            data = handle.read(_LARGEST_FILE + 1)
    except OSError as error:
        return LabelProblem(0, UNREADABLE, error.strerror or str(error))
    if len(data) > _LARGEST_FILE:
        return LabelProblem(0, UNREADABLE, f"larger than {_LARGEST_FILE:,} bytes")
    try:
        root, lines = _parse(_decoded(data))
    except expat.ExpatError as error:
        return LabelProblem(error.lineno, UNREADABLE, f"no valid XML: {expat.ErrorString(error.code)}")
    except (_Refused, ValueError, LookupError) as error:  # the last two: another encoding than it says, or none
        return LabelProblem(0, UNREADABLE, str(error))
    items = [
        VocObject(line, _text(item, "name"), _corners(item), _text(item, "difficult") not in ("", "0", "false"))
        for line, item in zip(lines, root.findall("object"), strict=True)
    ]
    size = tuple(_pixels(_text(root, f"size/{side}")) for side in ("height", "width"))
    return VocFile(_text(root, "filename"), (size[0], size[1]), items)


class _Refused(Exception):
    """An XML file that is not read any further. Its message says why."""


def _decoded(data: bytes) -> str | bytes:
    """The text of a file in an encoding of more than one byte, of which expat knows none; any other file as it is."""
    declared = _ENCODING.match(data)
    with suppress(LookupError):  # told by expat
        if declared and codecs.lookup(declared[1].decode()).name in _WIDE:
            return data.decode(declared[1].decode())  # expat then passes over what is declared
    return data


def _parse(data: str | bytes) -> tuple[Element, list[int]]:
    """The document, and the line of each object."""
    parser, builder, lines, depth = expat.ParserCreate(), TreeBuilder(), list[int](), [0]

    def refuse(*_: object) -> None:
        raise _Refused("it declares a document type or an entity; annotations need none, and such files are refused")

    def start(tag: str, attributes: dict[str, str]) -> None:
        depth[0] += 1
        if depth[0] > _DEEPEST:
            raise _Refused(f"more than {_DEEPEST} elements inside each other")
        if depth[0] == 2 and tag == "object":
            lines.append(parser.CurrentLineNumber)
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        depth[0] -= 1
        builder.end(tag)

    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.Parse(data, True)
    return builder.close(), lines


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _corners(item: Element) -> list[str | None]:
    return [item.findtext(f"bndbox/{corner}") for corner in _CORNERS]


def _pixels(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        return 0
    return int(value) if 1 <= value < 1 << 31 else 0


class VocXml(LabelSource):
    """Images that the XML files of a folder tell of.

    Args:
        entry: the folder, or a part of it that a list names.
        root: of the data set.
        names: {class: name}.
    """

    stateless = True

    def __init__(self, entry: Entry, root: Path, names: Mapping[int, str]) -> None:
        self.entry, self.root, self.names = entry, root, dict(names)
        self.folder = os.path.abspath(entry.annotations)
        self._class_of = {name: i for i, name in self.names.items()} | {EVERY_CLASS: ANY_CLASS}
        self._file_of: dict[str, str] = {}
        self._about: list[Problem] = []
        self._others: dict[str, Some] = {}
        self._watched: list[str] = []
        self._unlisted: dict[str, Some] = {}

    def __str__(self) -> str:
        return str(self.entry.list or self.folder)

    @property
    def identity(self) -> list[object]:
        images, chosen = (str(path.absolute()) if path else None for path in (self.entry.images, self.entry.list))
        return ["voc", 2, self.folder, images, chosen, self.entry.from_1, str(self.root.absolute())]

    def images(self) -> list[tuple[str, FileStat]]:
        self._unlisted = {}
        files = self._listed() if self.entry.list else _files(self.entry.annotations, self._pass_over)
        stems = [os.path.splitext(os.path.relpath(file, self.folder))[0] for file in files]
        folder = self._image_folder(stems)
        images, beside = Images(Path(folder), self.root), _Stems()
        found: dict[str, FileStat] = {}
        self._file_of = {}
        for file, stem in zip(files, stems, strict=True):
            suffix = beside.suffix(os.path.join(folder, stem))
            name = stem + suffix if suffix else self._named(file) or f"{stem}.jpg"
            path, stat = images.find(name)
            if path in found:
                images.odd.add(SEVERAL_FILES, "the first is used", name)
                continue
            found[path], self._file_of[path] = stat, file
        if found and all(stat == ABSENT for stat in found.values()):
            looked = [self.entry.images] if self.entry.images else likely_folders(self.entry.annotations, self.root)
            raise ValueError(
                f"None of the {len(found):,} images of {self} is there, such as {next(iter(found))}. Looked in "
                f"{', '.join(map(str, looked))}. Say where they are: "
                f"{{annotations: {self.entry.annotations.name}, images: FOLDER}} in place of the folder."
            )
        self._about = images.odd.about(str(self))
        self._others = images.others(found) if self.entry.list is None else {}  # a list names a part
        holding = {os.path.dirname(path) for path in (*found, *files)}
        lists = {str(self.entry.list.absolute())} if self.entry.list else set()
        self._watched = sorted(lists | set(map(nearest_folder, holding)))
        return sorted(found.items())

    def _pass_over(self, path: str, why: str) -> None:
        self._unlisted.setdefault(why, Some()).add(path)

    def _listed(self) -> list[str]:
        """The files that a list names, one a line without its suffix."""
        assert self.entry.list is not None
        try:
            with opened(self.entry.list) as file:
                lines = file.read().decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.entry.list} cannot be read: {error}") from None
        spellings = Spellings()
        files = (self._listed_file(line, spellings) for line in lines if line.strip() and "\0" not in line)
        return list(dict.fromkeys(file for file in files if file))

    def _listed_file(self, line: str, spellings: Spellings) -> str:
        """The file of a line; "" where a -1 behind its name says that it does not show the class of the list."""
        if os.path.isfile(self._place(line)):
            return self._place(line)
        name, flag = re.fullmatch(r"(.*?)(\s+-1|\s+[01])?", line.strip()).groups()  # type: ignore[union-attr]
        if flag and flag.strip() == "-1":
            return ""
        place = self._place(name)
        return place if os.path.isfile(place) else spellings.find(place) or place

    def _image_folder(self, stems: Sequence[str]) -> str:
        if self.entry.images is not None:
            return os.path.abspath(self.entry.images)
        asked, beside = stems[:: max(len(stems) // 32, 1)], _Stems()
        likely = likely_folders(self.entry.annotations, self.root)
        counts = {folder: sum(beside.suffix(os.path.join(folder, stem)) != "" for stem in asked) for folder in likely}
        best = max(likely, key=counts.__getitem__)
        if counts[best]:
            return os.path.abspath(best)
        return os.path.abspath(image_folder(self.entry, self.root, [self._named(self._place(stem)) for stem in asked]))

    def _place(self, stem: str) -> str:
        return os.path.join(self.folder, f"{stem}.xml")

    @staticmethod
    def _named(file: str) -> str:
        content = read_xml(file)
        return "" if isinstance(content, LabelProblem) or "\0" in content.image else content.image

    def label_stats(self, images: Sequence[str]) -> list[FileStat]:
        return [stat_of(self._file_of[image]) for image in images]

    def watched(self) -> list[str]:
        return self._watched

    def unused(self) -> Counter[str]:
        return counts_of(self._others | self._unlisted)

    def unused_names(self) -> dict[str, list[str]]:
        return names_of(self._others | self._unlisted)

    def label_file(self, image: str) -> str:
        if not self._file_of:
            self.images()  # an index that was opened without a look at the files asks for one of them
        return self._file_of.get(image, self.folder)

    def labels(self, image: str, stat: FileStat, header: ImageHeader) -> Labels:
        content = read_xml(self.label_file(image))
        if isinstance(content, LabelProblem):
            return no_labels([content])
        problems: list[LabelProblem] = []
        kept: list[tuple[VocObject, float, list[float]]] = []
        for item in content.objects:
            cls, box = self._class_of.get(item.name), _box(item.corners, self.entry.from_1)
            if cls is None or (cls == ANY_CLASS and not item.difficult):
                message = f"{item.name!r} is no class of the data set" if item.name else "an object without a name"
                problems.append(LabelProblem(item.line, UNKNOWN_CLASS, message))
            elif box is None:
                corners = ", ".join(f"{key} {text}" for key, text in zip(_CORNERS, item.corners, strict=True))
                problems.append(LabelProblem(item.line, NO_BOX, f"{item.name}: {corners}"))
            else:
                kept.append((item, cls, box))
        rows = PixelRows(
            np.array([cls for _, cls, _ in kept], np.float64),
            np.array([box for _, _, box in kept], np.float64).reshape(-1, 4),
            np.array([item.difficult for item, _, _ in kept], bool),
            [item.line for item, _, _ in kept],
            [item.name for item, _, _ in kept],
        )
        labels = to_labels(rows, content.size, header)
        return labels._replace(problems=problems + labels.problems)

    def problems(self) -> list[Problem]:
        return self._about


def _box(corners: Sequence[str | None], from_1: bool) -> list[float] | None:
    """left, top, width, height in px of xmin, ymin, xmax, ymax; a first pixel numbered 1 begins at 0."""
    try:
        left, top, right, bottom = (float(text or "") for text in corners)
    except ValueError:
        return None
    left, top = left - from_1, top - from_1
    return [left, top, right - left, bottom - top]


def _files(folder: Path, pass_over: PassOver) -> list[str]:
    """All XML files below a folder, sorted; folders that cannot be read are told to `pass_over`."""
    return sorted(file for file in files_below(str(folder), pass_over) if file.lower().endswith(".xml"))


class _Stems:
    """Suffixes of images by their path without it, in whatever Unicode form; each folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, str]] = {}

    def suffix(self, path: str) -> str:
        """The suffix of the image that is there, the first of several; "" if none is."""
        folder, stem = os.path.split(path)
        if folder not in self._folders:
            names: list[str] = []
            with suppress(OSError):  # then images are looked for one by one
                names = sorted(os.listdir(folder), reverse=True)
            split = (os.path.splitext(composed(name)) for name in names)
            self._folders[folder] = {stem: suffix for stem, suffix in split if suffix.lower() in IMAGE_SUFFIXES}
        return self._folders[folder].get(composed(stem), "")
