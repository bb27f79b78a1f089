"""Made-up photographs: 640 x 480, about 14 boxes each, as slow to decode as real ones. Nothing can be learned of them.

``python benchmarks/photos.py FOLDER TRAIN VAL``
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT, CLASSES, BOXES = 640, 480, 10, 14
QUALITY = 90  # of JPEG: about 100 kB a photograph


def ensure(folder: Path, train: int, val: int) -> Path:
    """Return the YAML of a set under ``folder``; it is made, by one process for each core, if it is not there."""
    yaml = folder / "photos.yaml"
    if not yaml.exists():
        for split in ("train", "val"):
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            for split, number in (("train", train), ("val", val)):
                list(pool.map(partial(write, folder, split), range(number), chunksize=16))
        names = [f"class{i}" for i in range(CLASSES)]
        yaml.write_text(f"path: .\ntrain: images/train\nval: images/val\nnames: {names}\n", encoding="utf-8")
    return yaml


def write(folder: Path, split: str, number: int) -> None:
    """Write a photograph and its labels."""
    image, rows = photograph(np.random.default_rng((split == "val", number)))
    quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    cv2.imwrite(str(folder / "images" / split / f"{number:05d}.jpg"), image, quality)
    text = "".join(f"{int(c)} {x:.5f} {y:.5f} {w:.5f} {h:.5f}\n" for c, x, y, w, h in rows)
    (folder / "labels" / split / f"{number:05d}.txt").write_text(text, encoding="utf-8")


def photograph(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a (HEIGHT, WIDTH, 3) uint8 image and rows (N, 5) of class and box, centre and size as shares."""
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    boxes = max(rng.poisson(BOXES), 1)
    sizes = np.exp(rng.uniform(np.log(0.04), np.log(0.5), (boxes, 2)))
    centres = sizes / 2 + rng.random((boxes, 2)) * (1 - sizes)
    classes = rng.integers(CLASSES, size=boxes)
    for centre, size in zip(centres, sizes, strict=True):
        middle, half = centre * (WIDTH, HEIGHT), size * (WIDTH, HEIGHT) / 2
        ink = tuple(map(int, rng.integers(0, 256, 3)))
        cv2.ellipse(image, tuple(map(int, middle)), tuple(map(int, half)), 0, 0, 360, ink, -1)
    grain = cv2.resize(rng.integers(0, 40, (HEIGHT // 2, WIDTH // 2, 3), dtype=np.uint8), (WIDTH, HEIGHT))
    return cv2.add(image, grain), np.column_stack([classes, centres, sizes])


if __name__ == "__main__":
    print(ensure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
