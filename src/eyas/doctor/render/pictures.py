"""Small pictures of places: the image with its boxes, near enough to see what is meant."""

from __future__ import annotations

import cv2
import numpy as np

from eyas.data.decode import load_image
from eyas.doctor.case import Case, Split
from eyas.doctor.finding import Place
from eyas.plot.images import FONT
from eyas.plot.style import class_bgr

HEIGHT = 200  # px of a picture
_WIDEST = 400
_QUALITY = 72
_LOADED = 1600  # px of the long side of an image that is cut to a part of it
_NEAR = 0.25  # share of the image that is shown at least, when boxes are small
_FAINT = (170, 170, 170)  # colour of boxes that are not meant


def picture(case: Case, place: Place) -> bytes | None:
    """JPEG of a place, and of the image beside it; None for a file that is no image of the index, or is not read."""
    shown = [_picture_of(case, each) for each in (place, place.beside) if each is not None and each.image is not None]
    found = [image for image in shown if image is not None]
    if not found:
        return None
    gap = np.full((HEIGHT, 4, 3), 255, np.uint8)
    sheet = found[0] if len(found) == 1 else np.hstack([found[0], gap, found[1]])
    return cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def _picture_of(case: Case, place: Place) -> np.ndarray | None:
    split, i = case.splits[place.split], place.image
    assert i is not None
    try:
        image = _load(split, i)
    except (OSError, ValueError, cv2.error):
        return None
    height, width = split.index.shapes[i].tolist()
    scale = np.array([image.shape[1] / width, image.shape[0] / height] * 2)
    rows = slice(int(split.index.label_offsets[i]), int(split.index.label_offsets[i + 1]))
    boxes, cls = split.xyxy[rows] * scale, split.cls[rows]
    meant = [(boxes[label], int(cls[label]), case.names[int(cls[label])]) for label in place.labels]
    found = [(np.array(seen.box) * scale, seen.cls, f"{case.names[seen.cls]} {seen.score:.2f}?") for seen in place.seen]
    left, top, right, bottom = _part(image, [box for box, *_ in (*meant, *found)])
    factor = min(HEIGHT / (bottom - top), _WIDEST / (right - left))
    size = max(round((right - left) * factor), 1), max(round((bottom - top) * factor), 1)
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    cut = cv2.resize(image[top:bottom, left:right], size, interpolation=way)
    corner = np.array([left, top] * 2)
    named = not (meant or found)
    for number, box in enumerate(boxes):
        if number not in place.labels:
            _draw(cut, (box - corner) * factor, class_bgr(int(cls[number])) if named else _FAINT, "", 1)
    for number, (box, c, text) in enumerate((*meant, *found)):
        _draw(cut, (box - corner) * factor, class_bgr(c), text, 1 if number else 2)
    sheet = np.full((HEIGHT, cut.shape[1], 3), 255, np.uint8)
    sheet[: cut.shape[0]] = cut[:HEIGHT]
    return sheet


def _load(split: Split, i: int) -> np.ndarray:
    height, width = split.index.shapes[i].tolist()
    return load_image(
        split.index.path(i),
        shape=(height, width),
        orientation=int(split.index.orientations[i]),
        white=split.index.white_of(i),
        imgsz=min(max(height, width), _LOADED),
    )


def _part(image: np.ndarray, boxes: list[np.ndarray]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is shown: the boxes with something around, or all where there are none."""
    height, width = image.shape[:2]
    if not boxes:
        return 0, 0, width, height
    low, high = np.min([box[:2] for box in boxes], axis=0), np.max([box[2:] for box in boxes], axis=0)
    half = np.maximum((high - low) * 0.8, np.array([width, height]) * _NEAR / 2)
    centre = (low + high) / 2
    left, top = np.floor((centre - half).clip(0)).astype(int).tolist()
    right, bottom = np.ceil(np.minimum(centre + half, [width, height])).astype(int).tolist()
    return min(left, width - 1), min(top, height - 1), max(right, left + 1), max(bottom, top + 1)


def _draw(image: np.ndarray, box: np.ndarray, color: tuple[int, int, int], text: str, width: int) -> None:
    x1, y1, x2, y2 = np.round(box).astype(int).tolist()
    cv2.rectangle(image, (x1, y1), (x2, y2), color, width, cv2.LINE_AA)
    if text and text.isascii():  # OpenCV's font has no other letters; the page names the class anyway
        at = max(x1, 2), max(y1 - 4, 11)
        cv2.putText(image, text[:24], at, FONT, 0.4, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(image, text[:24], at, FONT, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
