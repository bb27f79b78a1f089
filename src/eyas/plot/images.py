"""Pictures of images with their boxes, drawn with OpenCV."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eyas.plot.style import class_bgr, shortened

if TYPE_CHECKING:
    from eyas.types import Batch

FONT = cv2.FONT_HERSHEY_SIMPLEX
SHEET_SIDE = 1600  # pixels: fills a screen, and a 4 x 4 sheet of small images is still legible
MAX_TILES = 16
GAP = 4
HATCH = 10  # pixels from one line to the next
HATCH_GREY = 190


def draw_boxes(
    image: NDArray[np.uint8],
    boxes: NDArray,
    cls: NDArray,
    *,
    names: Mapping[int, str] | None = None,
    score: NDArray | None = None,
    ids: NDArray | None = None,
    line_width: int | None = None,
) -> NDArray[np.uint8]:
    """Return a copy of an image with its boxes, names and scores.

    Args:
        image: (h, w, 3) uint8 BGR.
        boxes: (n, 4) xyxy in pixels.
        cls: (n,) class ids; they choose the colours.
        names: class names by id; None writes none.
        score: (n,) scores; None writes none.
        ids: (n,) numbers of tracked objects; None writes none.
        line_width: pixels; None chooses by the image's size.
    """
    drawn = np.array(image, order="C")
    boxes = np.clip(np.nan_to_num(boxes), -10_000, 10_000)  # an untrained model may answer with anything
    width = line_width if line_width is not None else max(round(sum(image.shape[:2]) / 2 * 0.003), 2)
    order = np.argsort(score, kind="stable") if score is not None else np.arange(len(boxes))  # best on top
    for i in order.tolist():
        x1, y1, x2, y2 = (round(float(v)) for v in boxes[i])
        cv2.rectangle(drawn, (x1, y1), (x2, y2), class_bgr(int(cls[i])), width, cv2.LINE_AA)
    for i in order.tolist():  # labels after all rectangles, so that no line crosses them
        parts = [f"id {int(ids[i])}"] if ids is not None else []
        parts += [_written(names, int(cls[i]))] if names is not None else []
        parts += [f"{float(score[i]):.2f}"] if score is not None else []
        if parts:
            corner = round(float(boxes[i][0])), round(float(boxes[i][1]))
            write_label(drawn, " ".join(parts), corner, class_bgr(int(cls[i])), width)
    return drawn


def hatched(image: NDArray[np.uint8], areas: NDArray) -> NDArray[np.uint8]:
    """Return a copy of an image (h, w, 3) with slanted lines through areas (m, 4) of corners in pixels."""
    drawn = image.copy()
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    lines = (rows + columns) % HATCH < 2
    for x1, y1, x2, y2 in np.round(areas).astype(int).tolist():
        inside = (rows >= y1) & (rows < y2) & (columns >= x1) & (columns < x2)
        drawn[inside & lines] = HATCH_GREY
    return drawn


def save_batch_picture(
    path: Path,
    images: NDArray[np.uint8],
    *,
    boxes: NDArray,
    cls: NDArray,
    image: NDArray,
    names: Mapping[int, str],
    score: NDArray | None = None,
    titles: Sequence[str] = (),
    areas: tuple[NDArray, NDArray] | None = None,
) -> Path:
    """Write the first 16 images of a batch as one sheet.

    Args:
        path: file to write, .jpg or .png; its folder is made.
        images: (B, 3, H, W) RGB, uint8, or float in [0, 1].
        boxes: (n, 4) xyxy in pixels of these images.
        cls: (n,) class ids.
        image: (n,) index of the image each box belongs to.
        names: class names by id.
        score: (n,) scores; None for labels.
        titles: file of each image; its name is written into the corner.
        areas: corners (m, 4) in pixels and images (m,) of what is ignored, which is hatched.

    Raises:
        OSError: the file cannot be written.
    """
    count = min(len(images), MAX_TILES)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    height, width = images.shape[-2:]
    scale = SHEET_SIDE / (columns * max(height, width))
    tile_h, tile_w = round(height * scale), round(width * scale)
    sheet = np.full((rows * (tile_h + GAP) + GAP, columns * (tile_w + GAP) + GAP, 3), 255, dtype=np.uint8)
    for i in range(count):
        mine = image == i
        resized = cv2.resize(_to_bgr(images[i]), (tile_w, tile_h), interpolation=_interpolation(scale))
        to_tile = np.array([tile_w / width, tile_h / height] * 2)
        if areas is not None:
            resized = hatched(np.asarray(resized, np.uint8), areas[0][areas[1] == i] * to_tile)
        tile = draw_boxes(
            np.asarray(resized, np.uint8),
            np.asarray(boxes)[mine] * to_tile,
            np.asarray(cls)[mine],
            names=names,
            score=None if score is None else np.asarray(score)[mine],
            line_width=2,
        )
        if i < len(titles):
            _title(tile, PurePath(titles[i]).name)
        top, left = GAP + (i // columns) * (tile_h + GAP), GAP + (i % columns) * (tile_w + GAP)
        sheet[top : top + tile_h, left : left + tile_w] = tile
    return write_image(path, sheet)


def save_train_batch(path: Path, batch: Batch | Mapping[str, Any], names: Mapping[int, str]) -> Path:
    """Write a training batch with its labels, as the network sees it. The batch is not changed.

    Args:
        path: file to write, for example `train_batch0.jpg`.
        batch: `Batch` with normalised cx cy w h boxes; tensors on any device.
        names: class names by id.
    """
    images = batch["img"][:MAX_TILES].detach().cpu().numpy()
    height, width = images.shape[-2:]

    def corners(normalised: Any) -> NDArray:
        center_size = normalised.detach().cpu().numpy().reshape(-1, 4) * np.array([width, height, width, height])
        center, half = center_size[:, :2], center_size[:, 2:] / 2
        return np.concatenate([center - half, center + half], axis=1)

    ignored = batch.get("ignored")
    return save_batch_picture(
        path,
        images,
        boxes=corners(batch["bboxes"]),
        cls=batch["cls"].detach().cpu().numpy().reshape(-1).astype(np.int64),
        image=batch["batch_idx"].detach().cpu().numpy().astype(np.int64),
        names=names,
        titles=batch.get("im_file", ()),
        areas=None if ignored is None else (corners(ignored), batch["ignored_idx"].detach().cpu().numpy()),
    )


def write_image(path: Path, image: NDArray[np.uint8]) -> Path:
    """Write a BGR image and return its path; cv2 alone would fail without a word.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f"cannot write the picture {path}")
    return path


def _to_bgr(image: NDArray) -> NDArray[np.uint8]:
    if image.dtype != np.uint8:
        image = np.clip(image * 255, 0, 255).round().astype(np.uint8)
    return np.ascontiguousarray(image.transpose(1, 2, 0)[:, :, ::-1])


def _interpolation(scale: float) -> int:
    return cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC


def _written(names: Mapping[int, str], cls: int) -> str:
    """OpenCV's font knows ASCII only; another name is replaced by its id instead of a row of question marks."""
    name = names.get(cls, str(cls))
    return shortened(name, 20).replace("…", "..") if name.isascii() else f"class {cls}"


def write_label(
    image: NDArray[np.uint8], text: str, corner: tuple[int, int], color: tuple[int, int, int], width: int
) -> None:
    """Text on a filled patch above the corner, or inside the box where there is no room above."""
    size, thick = max(width * 0.22, 0.42), max(width // 3, 1)
    (text_w, text_h), _ = cv2.getTextSize(text, FONT, size, thick)
    pad = max(width, 2)
    left = int(np.clip(corner[0] - width // 2, 0, max(image.shape[1] - text_w - 2 * pad, 0)))
    bottom = corner[1] if corner[1] >= text_h + 2 * pad else corner[1] + text_h + 2 * pad
    bottom = int(np.clip(bottom, text_h + 2 * pad, max(image.shape[0] - 1, text_h + 2 * pad)))
    cv2.rectangle(image, (left, bottom - text_h - 2 * pad), (left + text_w + 2 * pad, bottom), color, -1)
    bright = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 140
    ink = (20, 20, 20) if bright else (255, 255, 255)
    cv2.putText(image, text, (left + pad, bottom - pad), FONT, size, ink, thick, cv2.LINE_AA)


def _title(tile: NDArray[np.uint8], text: str) -> None:
    """File name at the bottom left, white on a dark outline, so that it reads on any picture."""
    text = shortened(text if text.isascii() else ascii(text)[1:-1], 40).replace("…", "..")
    for color, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(tile, text, (6, tile.shape[0] - 8), FONT, 0.42, color, thick, cv2.LINE_AA)
