"""The embedded data set: real handwritten digits on real photographs, made on first use, nothing downloaded.

Glyphs come from scikit-learn (`load_digits`: 1,797 digits of 8 x 8 px), photographs from the files inside scikit-image.
A scene is a crop of one photograph with 1 to 6 digits written on it in a tint that contrasts with
the place it stands on. Boxes are the tight extent of the ink. The validation split shares neither a glyph nor a
photograph with training, so its score is one on things never seen.

Both libraries come with `pip install "eyas[demo]"`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from eyas.data.cache import cache_root
from eyas.files import make_folder

VERSION = 1  # part of the folder's name; raise it when scenes change
SEED = 20260
SIZE = 128  # px, both sides of a scene
SPLITS = {"default": {"train": 2000, "val": 300}, "tiny": {"train": 64, "val": 16}}
PHOTOGRAPHS = {
    "train": ("brick", "grass", "chelsea", "coffee", "rocket"),
    "val": ("gravel", "camera", "retina", "hubble_deep_field"),
}
VAL_GLYPHS = 0.2  # share of every class's glyphs that only validation uses

MAX_DIGITS = 6
INK_HEIGHT = (14.0, 48.0)  # px
TILT = 12.0  # degrees, either way
CONTRAST = (80.0, 160.0)  # grey levels between ink and the place it stands on
VISIBLE = 0.35  # share of full ink from which a pixel belongs to the box
MAX_OVERLAP = 0.05  # of the smaller box
JPEG_QUALITY = 95

_SOURCES = """\
Eyas embedded data set "digits", version {version}, {size} scenes.

Digits: "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine Learning Repository
(licensed there CC BY 4.0), as distributed with scikit-learn (sklearn.datasets.load_digits).

Photographs, as distributed with scikit-image (skimage.data; see the documentation of each function there):
  brick, gravel          CC0, from cc0textures.com (Bricks25, Gravel04)
  grass                  CC0, from deviantart.com/linolafett (Grass 01)
  chelsea                CC0, Stefan van der Walt
  coffee                 CC0, Rachel Michetti, courtesy of Pikolo Espresso Bar
  rocket                 public domain, SpaceX
  camera                 CC0, Lav Varshney
  retina                 CC0, Mikael Haggstrom
  hubble_deep_field      public domain, NASA, ESA

Training uses {train}; validation uses {val}.
No glyph and no photograph is in both. Labels: one row per digit, class cx cy w h, normalised by the image size.
"""


class Glyph(NamedTuple):
    """One handwritten digit: id = row in `load_digits`, label 0..9, ink (8, 8) float32 in [0, 1]."""

    id: int
    label: int
    ink: np.ndarray


class Scene(NamedTuple):
    """image (128, 128, 3) uint8 BGR; rows (n, 5) float64 class, cx, cy, w, h normalised; what it was made from."""

    image: np.ndarray
    rows: np.ndarray
    photograph: str
    glyph_ids: list[int]


def ensure_digits(size: str = "default", *, cache_dir: str | Path | None = None) -> Path:
    """Path of `digits.yaml`; the data set is made first if it is not there (5 seconds, 25 MB).

    Args:
        size: "default" (2,000 training and 300 validation scenes) or "tiny" (64 and 16).
        cache_dir: see `eyas.data.cache.cache_root`.

    Raises:
        ValueError: unknown size.
        ImportError: scikit-learn or scikit-image is missing; the message says how to install them.
    """
    if size not in SPLITS:
        raise ValueError(f"Unknown size {size!r} of the digits data set; choose one of {', '.join(SPLITS)}.")
    name = "digits" if size == "default" else f"digits-{size}"
    folder = cache_root(cache_dir) / "datasets" / f"{name}-v{VERSION}"
    if not (folder / "digits.yaml").exists():
        _build(folder, size)
    return folder / "digits.yaml"


def make_scenes(split: str, count: int) -> Iterable[Scene]:
    """The first `count` scenes of a split; scene i depends only on (`SEED`, split, i)."""
    glyphs = [[glyph for glyph in load_glyphs(split) if glyph.label == label] for label in range(10)]
    photographs = load_photographs(split)
    names = list(photographs)
    for i in range(count):
        rng = np.random.default_rng((SEED, list(PHOTOGRAPHS).index(split), i))
        name = names[i % len(names)]
        yield _compose(rng, photographs[name], name, glyphs)


def load_glyphs(split: str) -> list[Glyph]:
    """The glyphs of "train" or "val": of every class a fixed 80 % and 20 %."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(_missing("scikit-learn")) from error
    digits = load_digits()
    rng = np.random.default_rng(SEED)
    chosen: list[int] = []
    for label in range(10):
        ids = rng.permutation(np.flatnonzero(digits.target == label))
        cut = round(len(ids) * VAL_GLYPHS)
        chosen += (ids[:cut] if split == "val" else ids[cut:]).tolist()
    return [Glyph(i, int(digits.target[i]), (digits.images[i] / 16).astype(np.float32)) for i in sorted(chosen)]


def load_photographs(split: str) -> dict[str, np.ndarray]:
    """{name: (H, W, 3) uint8 BGR} of the photographs of a split, from the files inside scikit-image."""
    try:
        import skimage.data
    except ImportError as error:
        raise ImportError(_missing("scikit-image")) from error
    return {name: _as_bgr(getattr(skimage.data, name)()) for name in PHOTOGRAPHS[split]}


def _missing(package: str) -> str:
    return (
        f'The digits data set is made from {package}, which is not installed. Run: pip install "eyas[demo]" '
        "(or pip install scikit-learn scikit-image)"
    )


def _as_bgr(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[..., 2::-1])


def _compose(rng: np.random.Generator, photograph: np.ndarray, name: str, glyphs: list[list[Glyph]]) -> Scene:
    image = _background(rng, photograph)
    rows: list[list[float]] = []
    boxes: list[tuple[int, int, int, int]] = []
    ids: list[int] = []
    for _ in range(rng.integers(1, MAX_DIGITS + 1)):
        # Classes are drawn evenly, then a glyph of the class.
        label = int(rng.integers(10))
        glyph = glyphs[label][rng.integers(len(glyphs[label]))]
        mask = _write_glyph(rng, glyph.ink)
        box = _place(rng, mask.shape, boxes)
        if box is None:  # the scene is full
            continue
        _draw(rng, image, mask, box)
        boxes.append(box)
        ids.append(glyph.id)
        x1, y1, x2, y2 = box
        rows.append([label, (x1 + x2) / 2 / SIZE, (y1 + y2) / 2 / SIZE, (x2 - x1) / SIZE, (y2 - y1) / SIZE])
    return Scene(_to_uint8(image), np.array(rows), name, ids)


def _background(rng: np.random.Generator, photograph: np.ndarray) -> np.ndarray:
    """A square crop at 1/4 to the whole of the short side, turned, mirrored and relit: (128, 128, 3) float32."""
    height, width = photograph.shape[:2]
    short = min(height, width)
    side = int(rng.uniform(max(SIZE * 0.75, short / 4), short))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    crop = photograph[top : top + side, left : left + side]
    image = cv2.resize(crop, (SIZE, SIZE), interpolation=cv2.INTER_AREA if side > SIZE else cv2.INTER_LINEAR)
    image = np.rot90(image, int(rng.integers(4)))
    image = (image[:, ::-1] if rng.random() < 0.5 else image).astype(np.float32)
    return np.clip(image * np.float32(rng.uniform(0.7, 1.2)) + np.float32(rng.uniform(-20, 20)), 0, 255)


def _write_glyph(rng: np.random.Generator, ink: np.ndarray) -> np.ndarray:
    """The glyph enlarged, tilted and cut to its ink: (h, w) float32 opacity in [0, 1]."""
    height = float(np.exp(rng.uniform(*np.log(INK_HEIGHT))))
    rows = np.flatnonzero(ink.max(1) >= VISIBLE)
    scale = height / (rows[-1] - rows[0] + 1)
    stretch = rng.uniform(0.85, 1.15)
    tilt = np.deg2rad(rng.uniform(-TILT, TILT))
    side = int(np.ceil(8 * scale * 1.5)) + 4
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    matrix = turn @ np.diag([scale * stretch, scale])
    shift = np.full(2, side / 2 - 0.5) - matrix @ np.full(2, 3.5)
    warp = np.column_stack([matrix, shift])
    soft = cv2.warpAffine(ink, warp, (side, side), flags=cv2.INTER_CUBIC, borderValue=0)
    # 8 x 8 px of ink are blurred strokes; a steeper ramp gives the pen an edge and opens small loops.
    mask = np.clip((soft - 0.3) / 0.45, 0, 1).astype(np.float32)
    rows, columns = (np.flatnonzero(mask.max(axis) >= VISIBLE) for axis in (1, 0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(
    rng: np.random.Generator, shape: tuple[int, ...], taken: list[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """A free box (x1, y1, x2, y2) in px for a mask of this shape, wholly inside; None after 20 tries."""
    height, width = shape
    for _ in range(20):
        x, y = int(rng.integers(SIZE - width + 1)), int(rng.integers(SIZE - height + 1))
        box = (x, y, x + width, y + height)
        if all(_overlap(box, other) <= MAX_OVERLAP for other in taken):
            return box
    return None


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over the smaller area."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / min(areas)


def _draw(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """Write the mask onto the image in a tint lighter or darker than what lies below it."""
    x1, y1, x2, y2 = box
    patch = image[y1:y2, x1:x2]
    below = float(patch.mean())
    contrast = rng.uniform(*CONTRAST)
    lighter = rng.random() < 0.5
    if (below + contrast > 250) if lighter else (below - contrast < 5):  # no room on this side: take the other
        lighter = below < 127.5
    tint = below + (contrast if lighter else -contrast) + rng.uniform(-30, 30, 3)
    opacity = (mask * rng.uniform(0.85, 1.0))[..., None].astype(np.float32)
    image[y1:y2, x1:x2] = patch * (1 - opacity) + np.clip(tint, 0, 255).astype(np.float32) * opacity


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _build(folder: Path, size: str) -> None:
    """Write the data set beside its place and move it there in one step; a run that is cut off leaves nothing half."""
    from rich.progress import track

    from eyas.log import LOGGER, console

    make_folder(folder.parent, "EYAS_CACHE=FOLDER in the environment puts what is made from data elsewhere.")
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    LOGGER.info("Making the digits data set in %s", folder)
    try:
        whole = temporary / "whole"  # has the mode that the user wants, the temporary folder does not
        for split, count in SPLITS[size].items():
            (whole / "images" / split).mkdir(parents=True)
            (whole / "labels" / split).mkdir(parents=True)
            scenes = make_scenes(split, count)
            if console().is_terminal and count > 100:
                scenes = track(scenes, f"Making {split} scenes", total=count, console=console(), transient=True)
            for i, scene in enumerate(scenes):
                _write_scene(whole, split, i, scene)
        counts = " + ".join(f"{count} {split}" for split, count in SPLITS[size].items())
        photographs = {split: ", ".join(names) for split, names in PHOTOGRAPHS.items()}
        readme = _SOURCES.format(version=VERSION, size=counts, **photographs)
        (whole / "README.txt").write_text(readme, encoding="utf-8")
        names = "".join(f'  {i}: "{i}"\n' for i in range(10))
        head = "# Handwritten digits on photographs; see README.txt\npath: .\ntrain: images/train\nval: images/val\n"
        (whole / "digits.yaml").write_text(f"{head}names:\n{names}", encoding="utf-8")
        _move(whole, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move(temporary: Path, folder: Path) -> None:
    try:
        os.rename(temporary, folder)
    except OSError:
        if not (folder / "digits.yaml").exists():  # otherwise another process was faster
            raise


def _write_scene(folder: Path, split: str, i: int, scene: Scene) -> None:
    stem = f"{i:04d}_{scene.photograph}"
    image = folder / "images" / split / f"{stem}.jpg"
    done, data = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    image.write_bytes(data.tobytes())
    rows = "".join(" ".join(f"{value:.8g}" for value in row) + "\n" for row in scene.rows)
    (folder / "labels" / split / f"{stem}.txt").write_text(rows, encoding="utf-8")
