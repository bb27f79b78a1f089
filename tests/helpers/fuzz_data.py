"""Fuzzed data sets: label files of each format, images, and what lies where files should and is none."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from eyas.data.dataset_yaml import check_dataset
from eyas.data.errors import SampleError, UnloadableImage
from eyas.data.index import ImageIndex, build_index
from eyas.data.store import ImageStore
from fuzzing import BYTES, PLAIN, VALUES, Case, remove, swap, swap_number
from sick_data import picture

NAMES = ["cat", "dog", "owl"]
ROWS = "0 0.5 0.5 0.25 0.25\n1 0.3 0.4 0.2 0.1\n2 0.1 0.2 0.1 0.3 0.6 0.5\n"
ODD_TEXT = ("", "\n\n", "\0", "nan", "1e999", "-1", "0.5", "9" * 400, "é", "#", ",", "\t", "\x1b[2J", "0x1")


class LostError(AssertionError):
    """Something is missing, and nobody has said so."""


class DataFolder:
    """A data set of three images in a folder that is made anew for each case."""

    def __init__(self, folder: Path) -> None:
        self.root, self.cache = folder / "set", folder / "cache"
        folder.mkdir(exist_ok=True)
        self.images = [cv2.imencode(".png", picture(seed))[1].tobytes() for seed in range(3)]

    def anew(self) -> None:
        """Write three sound images with labels as text."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.cache, ignore_errors=True)
        for number, data in enumerate(self.images):
            self.put(f"images/{number}.png", data)
            self.put(f"labels/{number}.txt", ROWS.encode())

    def put(self, name: str, data: bytes) -> Path:
        """Write a file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def index(self, train: Any = "images") -> ImageIndex:
        """Index the set."""
        description = {"path": str(self.root), "train": train, "names": NAMES}
        data = check_dataset(description, splits=("train",), cache_dir=self.cache)
        return build_index(data["train"], names=data["names"], cache_dir=self.cache, workers=1)


def named_in(index: ImageIndex) -> set[str]:
    """Return the names of all files that a report speaks of."""
    report = index.report
    unused = (path for paths in report.unused_names.values() for path in paths)
    return {os.path.basename(path) for path in (*(problem.file for problem in report.problems), *unused)}


# -- labels ------------------------------------------------------------------------------------------------------------
def change_token(text: str, rng: random.Random) -> str:
    """Put something odd in the place of a number."""
    lines = [line.split(" ") for line in text.splitlines()]
    row = rng.choice(lines)
    row[rng.randrange(len(row))] = rng.choice(ODD_TEXT)
    return "\n".join(" ".join(line) for line in lines)


def change_rows(text: str, rng: random.Random) -> str:
    """Repeat, cut, join or shuffle rows."""
    lines = text.splitlines()
    lines.insert(rng.randrange(4), rng.choice((*lines, lines[0][: rng.randrange(19)], lines[1] + " " + lines[2], "0")))
    return rng.choice(("\n", "\r\n", "\r", "\n\n", " \n")).join(lines)


class Labels:
    """Label files: YOLO text, COCO, VOC and NDJSON."""

    def __init__(self, folder: Path) -> None:
        self.data = DataFolder(folder)
        images = [{"id": i, "file_name": f"{i}.png", "height": 96, "width": 128} for i in range(3)]
        boxes = [{"id": i, "image_id": i % 3, "category_id": 1 + i % 3, "bbox": [4 + i, 6, 20, 12]} for i in range(5)]
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
        self.coco = {"images": images, "categories": categories, "annotations": boxes}
        shown = [{"class": name, "bbox": [5, 6, 20, 12]} for name in NAMES]
        self.rows = [{"image": f"{i}.png", "width": 128, "height": 96, "objects": shown} for i in range(3)]

    def case(self, rng: random.Random) -> Case:
        """Return a set with a changed label file."""
        kind = rng.choice(("text", "text", "coco", "voc", "ndjson"))
        self.data.anew()
        change, use = getattr(self, f"make_{kind}")(rng)
        return Case(f"{kind}, {change}", use, "")

    def make_text(self, rng: random.Random) -> tuple[str, Callable[[], object]]:
        """Change a file of rows; every row is a box or a problem."""
        change = rng.choice((*BYTES, "number", "rows"))
        if change in BYTES:
            data = BYTES[change](ROWS.encode(), rng)
        else:
            data = (change_token if change == "number" else change_rows)(ROWS, rng).encode()
        self.data.put("labels/0.txt", data)
        lines = [line for line in data.decode("utf-8", "replace").splitlines() if line.strip()]

        def use() -> None:
            index = self.data.index()
            kept = next((k for i, k in enumerate(index.objects()) if index.path(i).endswith("0.png")), 0)
            told = [problem for problem in index.report.problems if problem.file.endswith("0.txt")]
            if kept < len(lines) and not told:
                raise LostError(f"{len(lines)} rows, {kept} boxes, and no problem: {data!r}")

        return change, use

    def make_coco(self, rng: random.Random) -> tuple[str, Callable[[], object]]:
        """Change a COCO file."""
        change, data = changed_json(self.coco, rng)
        self.data.put("images/annotations.json", data)
        return change, lambda: self.data.index("images/annotations.json")

    def make_ndjson(self, rng: random.Random) -> tuple[str, Callable[[], object]]:
        """Change one row of a file of rows of JSON."""
        rows = [json.dumps(row).encode() for row in self.rows]
        number = rng.randrange(len(rows))
        change, rows[number] = changed_json(self.rows[number], rng)
        self.data.put("images/set.ndjson", b"\n".join(rows))
        return change, lambda: self.data.index("images/set.ndjson")

    def make_voc(self, rng: random.Random) -> tuple[str, Callable[[], object]]:
        """Change an XML file."""
        shutil.rmtree(self.data.root / "labels")
        text = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{5 + i}</xmin><ymin>6</ymin><xmax>40</xmax><ymax>50</ymax>"
            "</bndbox></object>" for i, name in enumerate(NAMES)
        )  # fmt: skip
        sound = f"<annotation><size><width>128</width><height>96</height></size>{text}</annotation>"
        change = rng.choice((*BYTES, "number", "entities"))
        if change == "entities":
            inner = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
            data = f'<!DOCTYPE x [<!ENTITY a0 "x">{inner}]>{sound.replace("cat", "&a9;")}'.encode()
        elif change == "number":
            data = sound.replace(rng.choice(("5", "6", "40", "50", "128", "96")), rng.choice(ODD_TEXT)).encode()
        else:
            data = BYTES[change](sound.encode(), rng)
        for number in range(3):
            self.data.put(f"annotations/{number}.xml", data if number == 0 else sound.encode())
        return change, lambda: self.data.index({"images": "images", "annotations": "annotations"})


def changed_json(content: Any, rng: random.Random) -> tuple[str, bytes]:
    """Return a change of plain values, or of the JSON that they are written as."""
    change = rng.choice((*BYTES, *VALUES, "nested"))
    if change in VALUES:
        content = json.loads(json.dumps(content))
        {"entry removed": remove, "number swapped": swap_number}.get(change, swap_plain)(content, rng)
    data = json.dumps(content, default=str).encode("utf-8", "replace")
    if change == "nested":
        at = rng.randrange(len(data))
        return change, data[:at] + rng.choice((b"[", b'{"a":')) * rng.choice((10, 100_000)) + data[at:]
    return change, BYTES[change](data, rng) if change in BYTES else data


def swap_plain(content: Any, rng: random.Random) -> None:
    """Put an odd value that JSON can hold in the place of another."""
    swap(content, rng, PLAIN)


# -- images ------------------------------------------------------------------------------------------------------------
SUFFIXES = (".png", ".jpg", ".bmp", ".webp", ".tiff", ".jp2")


def lie_about_size(data: bytes, rng: random.Random) -> bytes:
    """Let the first bytes, where sizes stand, hold large numbers."""
    at = rng.randrange(4, 40)
    return data[:at] + rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\1\0\0")) + data[at + 4 :]


IMAGES: Mapping[str, Callable[[bytes, random.Random], bytes]] = {**BYTES, "size": lie_about_size}


class Images:
    """Image files: each is in the index or named as left out, and then loaded or refused as one that cannot be."""

    def __init__(self, folder: Path) -> None:
        self.data = DataFolder(folder)
        self.sound = {suffix: cv2.imencode(suffix, picture(9))[1].tobytes() for suffix in SUFFIXES}
        deep = (picture(9).astype(np.uint16) * 200)[..., 0]
        self.sound["16-bit.png"] = cv2.imencode(".png", deep)[1].tobytes()

    def case(self, rng: random.Random) -> Case:
        """Return a set with a changed image."""
        kind, change = rng.choice(list(self.sound)), rng.choice(list(IMAGES))
        suffix = "." + kind.rpartition(".")[2] if rng.random() < 0.8 else rng.choice(SUFFIXES)
        self.data.anew()
        self.data.put(f"images/odd{suffix}", IMAGES[change](self.sound[kind], rng))
        self.data.put("labels/odd.txt", ROWS.encode())
        return Case(f"{kind}, {change}", lambda: self.use(f"odd{suffix}"), "")

    def use(self, name: str) -> None:
        """Index the set and load all of it."""
        index = self.data.index()
        kept = [os.path.basename(index.path(i)) for i in range(len(index))]
        if name not in kept and name not in named_in(index):
            raise LostError(f"{name} is neither used nor named")
        store = ImageStore(index, imgsz=64, cache_dir=self.data.cache)
        for i, image in enumerate(kept):
            try:
                assert max(store.load(i).shape[:2]) == 64
            except (UnloadableImage, SampleError, ValueError) as error:
                if image != name or name not in str(error):
                    raise LostError(f"{image} cannot be loaded: {error}") from error


# -- what is no file ---------------------------------------------------------------------------------------------------
def fifo(path: Path, rng: random.Random) -> None:
    """A FIFO, which nobody writes into."""
    os.mkfifo(path)


def link(path: Path, rng: random.Random) -> None:
    """A link to a device, to itself, to nothing, around, or to another file of the set."""
    path.symlink_to(
        rng.choice(("/dev/zero", path.name, "nowhere", ".", "..", "../tra", "/", "1.png", "../labels/1.txt"))
    )


def listener(path: Path, rng: random.Random) -> None:
    """A socket, whose listener is gone."""
    before = os.getcwd()
    os.chdir(path.parent)  # its path may have no more than a hundred letters
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def folders(path: Path, rng: random.Random) -> None:
    """A folder in its place, or many in each other."""
    path.mkdir()
    for _ in range(rng.choice((0, 1, 200))):
        path = path / "d"
        path.mkdir()


def nothing(path: Path, rng: random.Random) -> None:
    """An empty file, or a huge one of holes."""
    path.touch()
    os.truncate(path, rng.choice((0, 1, 2**40)))


def text(path: Path, rng: random.Random) -> None:
    """Something else."""
    path.write_bytes(rng.choice((b"\xff" * 100, b"MZ", b"<html>", b"0 0 0", b"\0" * 70_000)))


SPECIAL: Mapping[str, Callable[[Path, random.Random], None]] = {
    "a FIFO": fifo, "a link": link, "a socket": listener, "folders": folders, "holes": nothing, "other": text,
}  # fmt: skip
PLACES = ("images/odd.png", "images/odd.jpg", "images/odd", "images/odd\udcff.png", "images/.odd.png",
          "images/o\ndd.png",
          "images/sub.png", "labels/odd.txt", "labels/sub", "labels", "images/odd.psd", "images/0.jpg")  # fmt: skip


class SpecialFiles:
    """What lies in a data set and is no image or label file: never waited for, never passed over in silence."""

    def __init__(self, folder: Path) -> None:
        self.data = DataFolder(folder)

    def case(self, rng: random.Random) -> Case:
        """Return a set with such a thing in it."""
        kind, place = rng.choice(list(SPECIAL)), self.data.root / rng.choice(PLACES)
        self.data.anew()
        if place.name == "odd.txt":
            self.data.put("images/odd.png", self.data.images[0])
        if place.is_dir():
            shutil.rmtree(place)
        SPECIAL[kind](place, rng)
        return Case(f"{kind}: {place.parent.name}/{place.suffix}", lambda: self.use(place), "")

    def use(self, place: Path) -> None:
        """Index the set; the sound images are there, and what is odd is used or counted, and no background."""
        index = self.data.index()
        kept = Counter(os.path.basename(index.path(i)) for i in range(len(index)))
        told = sum(index.report.unused.values()) + sum(index.report.counts.values())
        if place.parent.name == "images" and place.name not in kept and not told and not empty_folder(place):
            raise LostError(f"{place} is neither used nor counted")
        if place.name in ("odd.txt", "labels") and index.report.background and not empty_folder(place):
            raise LostError(f"{index.report.background} images are background, though {place} stands there")


def empty_folder(place: Path) -> bool:
    """Whether nothing lies there but folders, or rows of labels that say that there is nothing."""
    if place.is_dir():
        return not any(files for _, _, files in os.walk(place, followlinks=False))
    return place.is_file() and not place.read_bytes()[:100].strip()
