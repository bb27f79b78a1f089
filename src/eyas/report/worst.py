"""The worst images of a validation: which they are, and their truth beside what was found, as SVG over one picture.

Worst is the lowest F1 of an image at IoU 0.5 and at the score where the mean F1 of all classes is best; among equals
the one with more mistakes. Losses are known of batches alone, not of images.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from eyas.data.decode import read_image, resize
from eyas.data.numbered import Numbered, data_sets
from eyas.metrics.detection import DetMetrics, ImageCounts
from eyas.run.protocol import Loader

MOST = 12  # images shown
SIDE = 360  # px of the longer side of a picture
QUALITY = 75  # of its JPEG
BUDGET = 1_000_000  # bytes of all pictures: the page stays below 2 MB
NAMED = 25  # boxes in a picture whose names are written
MOST_TRUE, MOST_FOUND = 300, 40  # boxes in a picture; of those found, the ones with the best scores
GAP = 8  # between truth and prediction

Pixels = NDArray[np.uint8]
Picture = Callable[[str], "Shown | None"]


class Shown(NamedTuple):
    """A picture for the page: the content of a JPEG file, its (w, h), and the (w, h) of the image it was made from."""

    jpeg: bytes
    size: tuple[int, int]
    original: tuple[float, float]


class Judged(NamedTuple):
    """An image of a validation; boxes are xyxy in pixels of the image, best score first."""

    file: str
    f1: float
    missed: int
    false: int
    truth: NDArray[np.float32]
    truth_cls: NDArray[np.int64]
    found: NDArray[np.float32]
    found_cls: NDArray[np.int64]
    score: NDArray[np.float32]
    right: NDArray[np.bool_]

    @property
    def mistakes(self) -> str:
        """What is wrong in it, in words."""
        return f"F1 {self.f1:.2f}, {self.missed} missed, {self.false} false"


def worst_images(metrics: DetMetrics, most: int = MOST) -> list[Judged]:
    """Return the images with mistakes in a processed validation, the worst first; none where boxes were not kept."""
    stats, counts = metrics.stats, metrics.box.counts
    if counts is None or np.isnan(stats["pred_box"]).any() or np.isnan(stats["target_box"]).any():
        return []
    hits, found, true = counts.tp, counts.predicted, counts.true
    f1 = np.where(found + true > 0, 2 * hits / np.maximum(found + true, 1), 1.0)
    order = np.lexsort((np.arange(len(f1)), -(found + true - 2 * hits), f1))[:most]
    return [judged(metrics, counts, i, float(f1[i])) for i in order.tolist() if f1[i] < 1]


def judged(metrics: DetMetrics, counts: ImageCounts, i: int, f1: float) -> Judged:
    """Return what is known of image i."""
    stats = metrics.stats
    missed, false = int(counts.true[i] - counts.tp[i]), int(counts.predicted[i] - counts.tp[i])
    mine = np.flatnonzero((stats["pred_img"] == i) & counts.shown)
    mine = mine[np.argsort(-stats["conf"][mine], kind="stable")]
    its = stats["target_img"] == i
    return Judged(
        metrics.image_files[i], f1, missed, false,
        stats["target_box"][its], stats["target_cls"][its],
        stats["pred_box"][mine], stats["pred_cls"][mine], stats["conf"][mine], stats["tp"][mine, 0],
    )  # fmt: skip


class PictureBook:
    """Small pictures of images by their file, each made once: the worst are often the same from epoch to epoch.

    Args:
        loader: of the validation. From a data set of ours images come as it loads them, turned and with its white; of
            any other loader, files are read where the names are those of files.
    """

    def __init__(self, loader: Loader) -> None:
        self.data = next((part for part in data_sets(loader) if isinstance(part, Numbered)), None)
        self.numbers: dict[str, int] = {}
        self.made: dict[str, Shown] = {}

    def __call__(self, file: str) -> Shown | None:
        """Return the picture of a file; None where nobody can tell what it shows."""
        if file not in self.made and (picture := self.make(file)) is not None:
            self.made[file] = picture
        return self.made.get(file)

    def keep(self, files: list[str]) -> None:
        """Forget the pictures of other files."""
        self.made = {file: picture for file, picture in self.made.items() if file in files}

    def make(self, file: str) -> Shown | None:
        """Return a picture made anew."""
        if self.data is None:
            return small(image, image.shape[:2]) if (image := readable(file)) is not None else None
        self.numbers = self.numbers or {name: i for i, name in enumerate(self.data.im_files)}
        if file not in self.numbers:
            return None
        try:
            image = self.data.store.load(self.numbers[file])
        except (OSError, ValueError, cv2.error):  # the file has changed or gone since it was measured
            return None
        height, width = self.data.index.shapes[self.numbers[file]].tolist()
        return small(image, (height, width))


def readable(file: str) -> Pixels | None:
    """Return the image of a file that may be none, as names of samples are in a data set of the user's."""
    try:
        return read_image(file) if Path(file).is_file() else None
    except (OSError, ValueError, cv2.error):
        return None


def small(image: Pixels, original: tuple[int, int]) -> Shown | None:
    """Return a picture in the shape (h, w) of the original, however the image was stretched."""
    scale = min(SIDE / max(original), 1.0)
    height, width = (max(round(side * scale), 1) for side in original)
    written, jpeg = cv2.imencode(".jpg", resize(image, (height, width)), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return Shown(jpeg.tobytes(), (width, height), (original[1], original[0])) if written else None


def gallery(images: list[Judged], names: Mapping[int, str], picture: Picture) -> str:
    """Return figures of images whose pictures are at hand, as many as the page has room for."""
    figures, room = [], BUDGET
    for number, image in enumerate(images):
        shown = picture(image.file)
        if shown is None or len(shown.jpeg) > room:
            continue
        room -= len(shown.jpeg)
        figures.append(figure(image, shown, names, number))
    return f'<div class="worst">{"".join(figures)}</div>' if figures else ""


def figure(image: Judged, shown: Shown, names: Mapping[int, str], number: int) -> str:
    """Return one image: truth to the left, what was found to the right, over the same pixels."""
    width, height = shown.size
    scale = np.array([width / shown.original[0], height / shown.original[1]] * 2)
    data = base64.b64encode(shown.jpeg).decode()
    classes = [named(names, cls) for cls in image.truth_cls[:MOST_TRUE]]
    truth = boxes(image.truth[:MOST_TRUE] * scale, classes, ["truth"] * len(classes), width)
    scored = zip(image.found_cls[:MOST_FOUND], image.score[:MOST_FOUND], strict=True)
    labels = [f"{named(names, cls)} {score:.2f}" for cls, score in scored]
    kinds = ["right" if right else "wrong" for right in image.right[:MOST_FOUND]]
    found = boxes(image.found[:MOST_FOUND] * scale, labels, kinds, width)
    title = f"{Path(image.file).name}: {image.mistakes}"
    size = f'width="{width}" height="{height}"'
    return (
        f'<figure class="pictures"><svg viewBox="0 0 {2 * width + GAP} {height}" role="img" '
        f'aria-label="{escape(title)}"><defs><image id="image{number}" {size} href="data:image/jpeg;base64,{data}"/>'
        f'<clipPath id="edge{number}"><rect {size}/></clipPath></defs>'
        f'<g clip-path="url(#edge{number})"><use href="#image{number}"/>{truth}</g>'
        f'<g transform="translate({width + GAP})"><g clip-path="url(#edge{number})"><use href="#image{number}"/>'
        f'{found}</g></g></svg><p title="{escape(image.file)}">{escape(Path(image.file).name)} '
        f'<span class="soft">{escape(image.mistakes)}</span></p></figure>'
    )


def boxes(corners: NDArray[np.floating], labels: list[str], kinds: list[str], width: int) -> str:
    """Return rectangles of (n, 4) xyxy, with their names where there are few, in a picture of this width."""
    few, parts, words = len(corners) <= NAMED, [], []
    for (x1, y1, x2, y2), label, kind in zip(corners.tolist(), labels, kinds, strict=True):
        # An untrained model's boxes may be turned inside out.
        place = f'x="{x1:.1f}" y="{y1:.1f}" width="{max(x2 - x1, 0):.1f}" height="{max(y2 - y1, 0):.1f}"'
        parts.append(f'<rect class="{kind}" {place}><title>{escape(label)}</title></rect>')
        if few:
            x, anchor = (x1 + 2, "start") if x1 < 0.7 * width else (min(x2, width) - 2, "end")
            words.append(f'<text x="{x:.1f}" y="{max(y1 - 3, 10):.1f}" text-anchor="{anchor}">{escape(label)}</text>')
    return "".join([*parts, *words])


def named(names: Mapping[int, str], cls: int) -> str:
    """Return the name of a class, or its number where it has none."""
    return names.get(int(cls), str(cls))
