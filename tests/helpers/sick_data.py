"""Data sets for the doctor: a sound one, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 96, 128
NAMES = ("cup", "jug")
Row = tuple[float, float, float, float, float]
"""class, centre x, centre y, width, height, in px"""


def picture(seed: int) -> np.ndarray:
    """A picture (96, 128, 3) uint8 that resembles no other."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 220, (5, 7, 3), dtype=np.uint8)
    noise = rng.normal(0, 3, (HEIGHT, WIDTH, 3))
    return np.clip(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR) + noise, 0, 255).astype(np.uint8)


def objects(seed: int) -> list[Row]:
    """A cup and a jug, side by side, each of about the usual size and aspect."""
    rng = np.random.default_rng((7, seed))
    jitter = rng.uniform(0.85, 1.15, 4)
    cup, jug = 24 * jitter[:2], np.array([20, 44]) * jitter[2:]
    return [(0, 32, 48, *cup.tolist()), (1, 92, 48, *jug.tolist())]


class Set:
    """A data set in a folder that images are written into."""

    def __init__(self, folder: Path, names: Sequence[str] = NAMES) -> None:
        self.folder = folder
        self.yaml = folder / "data.yaml"
        folder.mkdir(exist_ok=True)
        self.yaml.write_text(f"train: images/train\nval: images/val\nnames: [{', '.join(names)}]\n")

    def image(self, split: str, name: str) -> Path:
        path = self.folder / "images" / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def label(self, split: str, name: str) -> Path:
        path = (self.folder / "labels" / split / name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def add(self, split: str, name: str, image: np.ndarray | bytes, rows: Sequence[Row] | str | None) -> Path:
        """Write an image and its labels: rows in px, or a text, or no file."""
        path = self.image(split, name)
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            assert cv2.imwrite(str(path), image)
        if isinstance(rows, str):
            self.label(split, name).write_text(rows)
        elif rows is not None:
            height, width = (HEIGHT, WIDTH) if isinstance(image, bytes) else image.shape[:2]
            text = [
                f"{c:g} {x / width:.6f} {y / height:.6f} {w / width:.6f} {h / height:.6f}" for c, x, y, w, h in rows
            ]
            self.label(split, name).write_text("\n".join(text))
        return path

    def fill(self, train: int, val: int) -> Set:
        """Add sound images."""
        for split, count, first in (("train", train, 0), ("val", val, 1000)):
            for i in range(count):
                self.add(split, f"{i:03}.jpg", picture(first + i), objects(first + i))
        return self


def plant(sick: Set) -> dict[str, set[str]]:
    """Put one fault of each kind into a set of at least 20 and 10 sound images.

    The set has the classes cup, jug, rare, ghost and none. Returns {kind: names of the files where it is}.
    """
    images, labels, planted = _faulty_images(sick), _faulty_labels(sick), _faulty_classes(sick)
    return images | labels | planted


def _faulty_images(sick: Set) -> dict[str, set[str]]:
    first = sick.image("train", "000.jpg").read_bytes()
    sick.add("val", "copy.jpg", first, objects(0))
    sick.add(
        "val", "mirrored.png", picture(1)[:, ::-1].copy(), [(c, WIDTH - x, y, w, h) for c, x, y, w, h in objects(1)]
    )
    small = cv2.imencode(".jpg", cv2.resize(picture(2), None, fx=0.5, fy=0.5), [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    sick.add("val", "small.jpg", small.tobytes(), objects(2))
    sick.add("train", "again.jpg", sick.image("train", "003.jpg").read_bytes(), objects(3))
    sick.add("train", "brighter.jpg", cv2.convertScaleAbs(picture(4), beta=25), objects(4))
    sick.add("train", "truncated.jpg", first[: len(first) // 2], objects(450))
    sick.add("train", "text.jpg", b"no image", objects(451))
    png = bytearray(cv2.imencode(".png", picture(452))[1].tobytes())
    png[100:-50] = bytes(len(png) - 150)
    sick.add("train", "damaged.png", bytes(png), objects(452))
    sick.add("train", "grey.png", np.full((HEIGHT, WIDTH, 3), 90, np.uint8), objects(453))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(454)).save(sick.image("train", "turned.jpg"), exif=exif)
    sick.label("train", "turned.jpg").write_text("0 0.5 0.5 0.25 0.19")
    sick.image("train", "other.blob").write_bytes(first)
    sick.label("train", "alone.jpg").write_text("0 0.5 0.5 0.2 0.2")
    sick.add("train", "nothing.jpg", picture(455), None)
    sick.add("train", "twin.png", picture(5), "")
    return {
        "same file in two splits": {"copy.jpg"},
        "same scene in two splits": {"mirrored.png", "small.jpg"},
        "same file twice": {"again.jpg"},
        "nearly the same image": {"brighter.jpg", "twin.png"},
        "truncated image": {"truncated.jpg"},
        "not an image": {"text.jpg"},
        "broken image": {"damaged.png"},
        "empty picture": {"grey.png"},
        "EXIF rotation": {"turned.jpg"},
        "image under another suffix": {"other.blob"},
        "label file without an image": {"alone.txt"},
        "no label file": {"nothing.jpg"},
        "no label amid labelled images": {"twin.png"},
        "same scene with and without labels": {"twin.png"},
    }


def _faulty_labels(sick: Set) -> dict[str, set[str]]:
    cup = (0, 40, 40, 24, 24)
    for number, (name, rows) in enumerate({
        "twice": [cup, (0, 40.5, 40, 24, 24)],
        "either": [cup, (1, 40, 40.5, 24, 24)],
        "inside": [cup, (0, 40, 41, 16, 16)],
        "tiny": [cup, (0, 90, 40, 6, 6)],
        "thin": [cup, (1, 90, 40, 1.5, 70)],
        "giant": [cup, (0, 64, 46, 126, 92)],
        "whole": [(0, 64, 48, 128, 96)],
        "wide": [(1, 64, 48, 60, 12)],
        "large": [(0, 64, 48, 80, 82)],
    }.items()):  # fmt: skip
        sick.add("train", f"{name}.jpg", picture(200 + number), rows)  # type: ignore[arg-type]  # the dictionary joins kinds
    sick.add("train", "rows.jpg", picture(220), "0 0.5 0.5 0.25 0.25\n0 0.5 0.5\n")
    return {
        "duplicate box": {"twice.jpg"},
        "one box, two classes": {"either.jpg"},
        "box inside another": {"inside.jpg"},
        "tiny box": {"tiny.jpg"},
        "thin box": {"thin.jpg"},
        "giant box": {"giant.jpg"},
        "whole image": {"whole.jpg"},
        "odd aspect": {"wide.jpg", "thin.jpg", "either.jpg"},
        "odd size": {"large.jpg", "tiny.jpg", "thin.jpg", "giant.jpg", "whole.jpg", "inside.jpg"},
        "bad column count": {"rows.txt"},
    }


def _faulty_classes(sick: Set) -> dict[str, set[str]]:
    sick.add("train", "rare.jpg", picture(230), [(2, 64, 48, 24, 24)])
    sick.add("val", "ghost.jpg", picture(231), [(3, 64, 48, 24, 24)])
    return {
        "class never labelled": set(),
        "class not in train": set(),
        "class not in val": set(),
        "few examples": set(),
        "uneven classes": set(),
    }
