"""Data sets from one label format to another: YOLO, COCO and Pascal VOC.

What a training sees, it sees after the conversion too: the same float32 boxes, classes in the same order, areas to
ignore, splits and names of images. What it does not see (outlines, keypoints, poses, ids) is not carried.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import yaml

from eyas.data.dataset_yaml import SPLITS, check_dataset
from eyas.data.files import IMAGE_SUFFIXES
from eyas.data.formats import Labels, LabelSource, YoloText
from eyas.data.formats.base import ANY_CLASS, NO_USABLE_ROW, NOTHING_IGNORED
from eyas.data.formats.pixels import to_pixels
from eyas.data.formats.table import ANY
from eyas.data.formats.voc import EVERY_CLASS
from eyas.data.formats.yolo import IGNORED, TextRules, label_path
from eyas.data.image_file import copy_image_file
from eyas.data.image_header import ImageHeader, read_header, why_no_file
from eyas.data.remote.address import is_remote, shown
from eyas.data.report import DatasetReport, Problem
from eyas.files import expanded
from eyas.log import LOGGER
from eyas.names import did_you_mean

IMAGES = ("copy", "link")
_AT_ONCE = 256  # images


def convert(
    data: str | Path | Mapping[str, Any],
    to: str,
    out: str | Path,
    *,
    images: str = "copy",
    drop_ignored: bool = False,
    ids_start: int | None = None,
) -> dict[str, DatasetReport]:
    """Write a data set in another label format, with a `data.yaml` that says how to train on it.

    Args:
        data: as `check_dataset` takes it.
        to: "yolo", "coco" or "voc".
        out: the new folder; it must not exist, or be empty.
        images: "copy" them, or "link" to them where they are; no link leads to those of another machine.
        drop_ignored: leave areas to ignore out. They are crowds of COCO and `difficult` objects of VOC; YOLO text has
            no place for them, and gets files of its own in a folder `ignored`, which Eyas reads and others pass over.
        ids_start: the class id that label files of YOLO text begin with.

    Returns:
        {split: what was found in it}. Labels that cannot be used are not carried, and told there and in a table;
        images without any usable one, and those that cannot be read, are left out.

    Raises:
        ValueError: an unknown format, a folder that holds something, names that the format cannot tell apart.
    """
    if to not in WRITERS:
        raise ValueError(f"to={to}: use one of {', '.join(WRITERS)}.{did_you_mean(to, WRITERS)}")
    if images not in IMAGES:
        raise ValueError(f"images={images}: use one of {', '.join(IMAGES)}.{did_you_mean(images, IMAGES)}")
    try:
        target = expanded(out).absolute()
    except ValueError as error:
        raise ValueError(f"out={error}") from None
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"out={out} is there already, and not empty. Nothing is overwritten: choose another folder.")
    described = check_dataset(data, splits=(), optional=SPLITS, ids_start=ids_start)
    held_out = described["val_fraction"]
    sources = {
        split: _source(described, split)
        for split in SPLITS
        if described[split] and not (held_out is not None and split == "val")
    }
    if not sources:
        raise ValueError(f"data={data} describes no images: it has none of the keys {', '.join(SPLITS)}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        whole = temporary / "whole"  # has the mode that the user wants, the temporary folder does not
        whole.mkdir()
        writer = WRITERS[to](whole, described["names"])
        reports = {
            split: _convert_split(source, split, writer, link=images == "link", drop_ignored=drop_ignored)
            for split, source in sources.items()
        }
        _write_yaml(whole, writer, described, list(sources))
        if target.exists():
            target.rmdir()
        os.rename(whole, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for report in reports.values():
        report.print_table()
    writer.tell()
    LOGGER.info("Carried: boxes, classes, splits, areas to ignore. Outlines, keypoints, ids and other fields are not.")
    LOGGER.info("Written to %s: train with data=%s", target, target / "data.yaml")
    return reports


def _source(described: Mapping[str, Any], split: str) -> LabelSource:
    found = described[split]
    if isinstance(found, LabelSource):
        return found
    rules = TextRules(described["ids"], described["keypoints"], described["path"])
    return YoloText(found, num_classes=described["nc"], rules=rules)


def _convert_split(source: LabelSource, split: str, writer: Writer, *, link: bool, drop_ignored: bool) -> DatasetReport:
    report = DatasetReport(split)
    found = dict(source.images())
    paths = list(found)
    if not paths:
        raise ValueError(f"No images for {split} in {source}. {source.explain([])}".rstrip())
    if link and (far := next(filter(is_remote, paths), None)) is not None:
        raise ValueError(f"images=link: no link leads to {shown(far)}. Leave it out, and the images are copied.")
    stats = dict(zip(paths, source.label_stats(paths), strict=True))
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    for start in range(0, len(paths), _AT_ONCE):
        headers: dict[str, ImageHeader] = {}
        for path in paths[start : start + _AT_ONCE]:
            if header := _header(path, found[path].size < 0, report):
                headers[path] = header
        several = list(headers)
        read = source.labels_of(several, [stats[path] for path in several], list(headers.values())) if several else []
        for path, labels in zip(several, read, strict=True):
            report.add(Problem(source.label_file(path), *problem[:3]) for problem in labels.problems)
            if labels.unusable:
                report.left_out[NO_USABLE_ROW] += 1
                continue
            if drop_ignored:
                writer.dropped += len(labels.ignored.cls)
                labels = labels._replace(ignored=NOTHING_IGNORED)
            name = os.path.relpath(path, root).replace(os.sep, "/")
            _put(path, writer.image(split, name), link)
            writer.write(split, name, headers[path], labels)
            report.images += 1
            report.background += not len(labels.cls)
            report.boxes += len(labels.cls)
            writer.ignored += len(labels.ignored.cls)
    report.add(source.problems())
    report.unused, report.unused_names = dict(source.unused()), source.unused_names()
    if not report.images:
        raise ValueError("\n  ".join([f"None of the images for {split} can be used:", *report.lines(limit=10)]))
    writer.close(split)
    return report


def _header(path: str, absent: bool, report: DatasetReport) -> ImageHeader | None:
    header, trouble = (None, None) if absent else read_header(path)
    if absent:
        trouble = why_no_file(path)
    if trouble is not None:
        report.add([Problem(path, 0, *trouble)])
        report.left_out[trouble.kind] += header is None
    report.left_out = +report.left_out
    return header


def _put(path: str, place: Path, link: bool) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if link:
        place.symlink_to(path)
    else:
        copy_image_file(path, place)


def _write_yaml(folder: Path, writer: Writer, described: Mapping[str, Any], splits: Sequence[str]) -> None:
    content: dict[str, Any] = {"path": ".", **{split: writer.entry(split) for split in splits}}
    if described["val_fraction"] is not None:
        content["val"] = described["val_fraction"]
    if described["value_range"] is not None:
        content["value_range"] = described["value_range"]
    content["names"] = dict(described["names"])
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


class Writer(ABC):
    """Writes labels of one format below a folder.

    Attributes:
        ignored: areas to ignore that were carried.
        dropped: those that were not.
        inexact: boxes of which no number of px reads back to the last bit.
    """

    images = "images"

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self.folder, self.names = folder, dict(names)
        self.ignored = self.dropped = self.inexact = 0
        self._taken: dict[str, str] = {}

    def image(self, split: str, name: str) -> Path:
        """Where an image goes.

        Raises:
            ValueError: its name leads out of the folder, or is one that no other format can find again.
        """
        parts, suffix = name.split("/"), os.path.splitext(name)[1].lower()
        if suffix not in IMAGE_SUFFIXES or any(part in ("", "..") or part[:1] == "." or "\n" in part for part in parts):
            raise ValueError(f"{name}: an image of this name is found by its annotations alone; give it another one.")
        stem = f"{split}/{os.path.splitext(name)[0]}"
        first = self._taken.setdefault(stem, name)
        if first != name:
            raise ValueError(f"{first} and {name} of {split} would share one label file; rename one of them.")
        return self.folder / self.images / split / name

    @abstractmethod
    def write(self, split: str, name: str, header: ImageHeader, labels: Labels) -> None:
        """Write the labels of an image."""

    @abstractmethod
    def entry(self, split: str) -> object:
        """What the description says of a split."""

    def close(self, split: str) -> None:  # noqa: B027 - some have nothing left to write
        """A split has no more images."""

    def tell(self) -> None:
        """Say what was not carried, or in an unusual way."""
        if self.dropped:
            LOGGER.warning("%s areas to ignore were left out: objects in them count as mistakes.", f"{self.dropped:,}")
        if self.inexact:
            LOGGER.warning("%s boxes are so small that px in decimals give others.", f"{self.inexact:,}")

    def pixels(self, boxes: np.ndarray, header: ImageHeader, *, corners: bool) -> list[list[float]]:
        """Boxes in px; whole ones as integers."""
        values, exact = to_pixels(boxes, header.height, header.width, corners=corners)
        self.inexact += int((~exact).sum())
        return [[int(value) if value == int(value) else value for value in row] for row in values.tolist()]


class YoloWriter(Writer):
    """`images/train/a.jpg`, `labels/train/a.txt`; and `ignored/train/a.txt`, where there is something to ignore."""

    def write(self, split: str, name: str, header: ImageHeader, labels: Labels) -> None:
        image = str(self.image(split, name))
        _write_rows(Path(label_path(image)), labels.cls, labels.boxes)
        if len(labels.ignored.cls):
            _write_rows(Path(label_path(image, IGNORED)), *labels.ignored)

    def entry(self, split: str) -> object:
        return f"images/{split}"

    def tell(self) -> None:
        super().tell()
        if self.ignored:
            LOGGER.info(
                "%s areas to ignore are in the folder %s, which Eyas alone reads; drop_ignored=true leaves them out.",
                f"{self.ignored:,}",
                IGNORED,
            )


def _write_rows(file: Path, cls: np.ndarray, boxes: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # The text of a float32 is the shortest that reads back as the same.
    rows = (f"{int(c)} {' '.join(map(str, box))}\n" for c, box in zip(cls, boxes, strict=True))
    file.write_text("".join(rows), encoding="utf-8")


class CocoWriter(Writer):
    """`images/train/a.jpg`, `annotations/instances_train.json`. Category ids are classes + 1."""

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        super().__init__(folder, names)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def write(self, split: str, name: str, header: ImageHeader, labels: Labels) -> None:
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": name, "width": header.width, "height": header.height})
        for (cls, boxes), crowd in (((labels.cls, labels.boxes), 0), (labels.ignored, 1)):
            for c, box in zip(cls.tolist(), self.pixels(boxes, header, corners=False), strict=True):
                self._annotations.append({
                    "id": len(self._annotations) + 1,
                    "image_id": number,
                    "category_id": ANY if c == ANY_CLASS else int(c) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": crowd,
                })  # fmt: skip

    def entry(self, split: str) -> object:
        return {"annotations": f"annotations/instances_{split}.json", "images": f"images/{split}"}

    def close(self, split: str) -> None:
        categories = [{"id": i + 1, "name": name, "supercategory": ""} for i, name in self.names.items()]
        content = {"images": self._images, "annotations": self._annotations, "categories": categories}
        file = self.folder / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content), encoding="utf-8")
        self._images, self._annotations = [], []


class VocWriter(Writer):
    """`JPEGImages/train/a.jpg`, `Annotations/train/a.xml`, and `ImageSets/Main/train.txt` with `train/a`."""

    images = "JPEGImages"

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        super().__init__(folder, names)
        self._listed: list[str] = []
        for name in self.names.values():
            if name != name.strip() or not name.isprintable() or name in ("", EVERY_CLASS):
                raise ValueError(f"the class {name!r} cannot stand in a file of Pascal VOC; give it another name.")

    def write(self, split: str, name: str, header: ImageHeader, labels: Labels) -> None:
        stem = os.path.splitext(name)[0]
        objects = [
            self._object(c, box, difficult)
            for (cls, boxes), difficult in (((labels.cls, labels.boxes), 0), (labels.ignored, 1))
            for c, box in zip(cls.tolist(), self.pixels(boxes, header, corners=True), strict=True)
        ]
        file = self.folder / "Annotations" / split / f"{stem}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        shown = os.path.basename(name).encode("utf-8", "replace").decode()
        file.write_text(
            f"<annotation>\n<filename>{escape(shown) if shown.isprintable() else ''}</filename>\n"
            f"<size><width>{header.width}</width><height>{header.height}</height><depth>3</depth></size>\n"
            f"{''.join(objects)}</annotation>\n",
            encoding="utf-8",
        )
        self._listed.append(f"{split}/{stem}\n")

    def _object(self, cls: float, box: Sequence[float], difficult: int) -> str:
        name = EVERY_CLASS if cls == ANY_CLASS else self.names[int(cls)]
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        return (
            f"<object><name>{escape(name)}</name><difficult>{difficult}</difficult>"
            f"<bndbox>{''.join(f'<{key}>{value}</{key}>' for key, value in corners)}</bndbox></object>\n"
        )

    def entry(self, split: str) -> object:
        return {"annotations": f"Annotations/{split}", "images": f"JPEGImages/{split}"}

    def close(self, split: str) -> None:
        file = self.folder / "ImageSets" / "Main" / f"{split}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(self._listed), encoding="utf-8", errors="surrogateescape")
        self._listed = []


WRITERS: dict[str, type[Writer]] = {"yolo": YoloWriter, "coco": CocoWriter, "voc": VocWriter}
