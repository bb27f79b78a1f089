"""Two more small data sets, made from what installed packages ship: `letters` (written) and `coins` (photographed).

`letters` has twelve classes, six of which are mirror images of each other, in five fonts of matplotlib on photographs
of scikit-image. `coins` has one class: the 24 coins of a photograph of scikit-image, cut out and laid, turned, on
textures. Validation has photographs, fonts and coins of its own. Both are a function of a seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from skimage.measure import label, regionprops

SIZE = 128  # px, both sides of a scene
COUNTS = {"train": 320, "val": 80}
SEED = 20261
CLASSES = {"letters": list("bdpqnuaegkrs"), "coins": ["coin"]}
PHOTOGRAPHS = {"train": ("astronaut", "chelsea", "coffee", "rocket"), "val": ("camera", "retina", "hubble_deep_field")}
TEXTURES = {"train": ("brick", "gravel"), "val": ("grass",)}
FONTS = {
    "train": ("DejaVu Sans", "DejaVu Serif", "STIXGeneral"),
    "val": ("DejaVu Sans Mono", "cmr10"),
}
VAL_COINS = 2  # of the six of every row

Ink = tuple[int, np.ndarray, np.ndarray]  # class, (h, w, 3) float32 picture, (h, w) float32 opacity
Scene = tuple[np.ndarray, list[list[float]]]  # picture, rows `class cx cy w h`


def ensure(name: str, root: Path) -> Path:
    """Return the path of a set's YAML under `root`; the set is made if it is not there."""
    folder = root / name
    yaml = folder / f"{name}.yaml"
    if not yaml.exists():
        for split in COUNTS:
            write_split(name, split, folder)
        yaml.write_text(f"path: .\ntrain: images/train\nval: images/val\nnames: {CLASSES[name]}\n", encoding="utf-8")
    return yaml


def write_split(name: str, split: str, folder: Path) -> None:
    """Write images and labels of one split."""
    rng = np.random.default_rng((SEED, sorted(CLASSES).index(name), sorted(COUNTS).index(split)))
    draw = {"letters": letters, "coins": coins}[name](rng, split)
    names = PHOTOGRAPHS[split] if name == "letters" else TEXTURES[split]
    backgrounds = [colour(getattr(skimage.data, each)()) for each in names]
    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    for i in range(COUNTS[split]):
        image, rows = scene(rng, backgrounds[i % len(backgrounds)], draw)
        cv2.imwrite(str(folder / "images" / split / f"{i:04d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        text = "".join(f"{c} " + " ".join(f"{v:.6f}" for v in box) + "\n" for c, *box in rows)
        (folder / "labels" / split / f"{i:04d}.txt").write_text(text, encoding="utf-8")


def scene(rng: np.random.Generator, background: np.ndarray, draw: Iterator[Ink]) -> Scene:
    """Return a (SIZE, SIZE, 3) uint8 picture with one to six objects, and rows `class cx cy w h` in shares of it."""
    side = int(rng.uniform(SIZE, min(background.shape[:2])))
    top, left = (int(rng.integers(n - side + 1)) for n in background.shape[:2])
    image = cv2.resize(background[top : top + side, left : left + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    image = np.clip(image * rng.uniform(0.6, 1.2), 0, 255).astype(np.float32)
    taken, rows = np.zeros((SIZE, SIZE), bool), []
    for _ in range(rng.integers(1, 7)):
        cls, ink, opacity = next(draw)
        height, width = opacity.shape
        y, x = int(rng.integers(SIZE - height + 1)), int(rng.integers(SIZE - width + 1))
        place = np.s_[y : y + height, x : x + width]
        if taken[place].any():
            continue
        taken[place] = True
        image[place] += (ink - image[place]) * opacity[..., None]
        rows.append([cls, (x + width / 2) / SIZE, (y + height / 2) / SIZE, width / SIZE, height / SIZE])
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), rows


def letters(rng: np.random.Generator, split: str) -> Iterator[Ink]:
    """Yield letters: any class, font, size from 14 to 44 px, tint, and up to 12 degrees of tilt."""
    while True:
        cls = int(rng.integers(len(CLASSES["letters"])))
        font = FontProperties(family=str(rng.choice(FONTS[split])))
        path = TextPath((0, 0), CLASSES["letters"][cls], size=rng.uniform(24, 64), prop=font)
        angle = np.deg2rad(rng.uniform(-12, 12))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        polygons = [polygon @ turn * (1, -1) for polygon in path.to_polygons()]
        low = np.min([polygon.min(0) for polygon in polygons], axis=0)
        high = np.max([polygon.max(0) for polygon in polygons], axis=0)
        width, height = np.ceil(high - low).astype(int) + 1
        mask = np.zeros((height, width), np.uint8)
        points = [np.rint((polygon - low) * 16).astype(np.int32) for polygon in polygons]
        cv2.fillPoly(mask, points, 255, lineType=cv2.LINE_AA, shift=4)
        tint = rng.uniform(0, 90, 3) + (165 if rng.random() < 0.5 else 0)
        yield cls, np.broadcast_to(tint, (*mask.shape, 3)).astype(np.float32), mask.astype(np.float32) / 255


def coins(rng: np.random.Generator, split: str) -> Iterator[Ink]:
    """Yield coins: any of the split, from 18 to 48 px, turned by any angle, lighter or darker."""
    cut = cut_coins()
    chosen = [coin for row in range(4) for coin in (cut[row][:VAL_COINS] if split == "val" else cut[row][VAL_COINS:])]
    while True:
        picture, opacity = chosen[rng.integers(len(chosen))]
        side = int(rng.uniform(18, 48))
        half = picture.shape[0] / 2
        matrix = cv2.getRotationMatrix2D((half, half), rng.uniform(0, 360), side / picture.shape[0])
        matrix[:, 2] += side / 2 - half
        ink = cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpAffine(opacity, matrix, (side, side), flags=cv2.INTER_LINEAR)
        yield 0, colour(ink * np.float32(rng.uniform(0.7, 1.2))), mask


def cut_coins() -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Return pictures and discs of the coins, by rows from above and from left to right; squares as wide as each is."""
    photograph = skimage.data.coins()
    bright = cv2.morphologyEx((photograph > 130).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5)))
    discs = [region for region in regionprops(label(bright)) if region.area > 900]  # smaller ones are the lit corner
    discs.sort(key=lambda region: region.centroid[0])
    rows = []
    for row in range(4):
        line = []
        for region in sorted(discs[6 * row : 6 * row + 6], key=lambda region: region.centroid[1]):
            y, x = region.centroid
            radius = int(max(region.bbox[2] - region.bbox[0], region.bbox[3] - region.bbox[1]) / 2)
            padded = np.pad(photograph, radius, mode="edge")
            square = padded[int(y) : int(y) + 2 * radius, int(x) : int(x) + 2 * radius].astype(np.float32)
            disc = np.zeros_like(square)
            cv2.circle(disc, (radius, radius), radius - 1, 1.0, -1, lineType=cv2.LINE_AA)
            line.append((square, disc))
        rows.append(line)
    return rows


def colour(image: np.ndarray) -> np.ndarray:
    """Return a grey or RGB picture as (h, w, 3) BGR."""
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else np.ascontiguousarray(image[..., 2::-1])
