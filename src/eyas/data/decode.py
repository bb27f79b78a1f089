"""Image file -> uint8 BGR array at the size the network needs, with as little work as possible (spec core E.5)."""

from __future__ import annotations

import math
import os

import cv2
import numpy as np

from eyas.data.image_header import close_jpeg, read_header

_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


def resized_shape(shape: tuple[int, int], imgsz: int, *, stretch: bool = False) -> tuple[int, int]:
    """(h, w) after loading: the long side is `imgsz`, the other is rounded up; `stretch` makes both `imgsz`."""
    if stretch:
        return imgsz, imgsz
    height, width = shape
    ratio = imgsz / max(height, width)
    return max(min(math.ceil(height * ratio), imgsz), 1), max(min(math.ceil(width * ratio), imgsz), 1)


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Whole image at its own size, (h, w, 3) uint8 BGR, EXIF orientation applied.

    Raises:
        ValueError: the file is no usable image.
        OSError: the file cannot be read.
    """
    header, problem = read_header(os.fspath(path))
    if header is None:
        assert problem is not None
        raise ValueError(f"{os.fspath(path)}: {problem.kind}: {problem.message}")
    return decode(np.fromfile(path, np.uint8), (header.height, header.width), header.orientation, name=os.fspath(path))


def load_image(
    path: str, *, shape: tuple[int, int], orientation: int = 1, imgsz: int, stretch: bool = False
) -> np.ndarray:
    """Image resized for the network, (h, w, 3) uint8 BGR with (h, w) = `resized_shape(shape, imgsz)`.

    A JPEG at least twice too large is decoded at 1/2, 1/4 or 1/8 of its size, which is several times faster than
    decoding all of it and averages pixels instead of skipping them. Other formats are averaged down likewise.

    Args:
        path: image file.
        shape: (h, w) the index recorded, after orientation.
        orientation: EXIF orientation 1..8 the index recorded.

    Raises:
        ValueError: the file cannot be decoded, or has another shape than recorded.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ValueError(f"{path}: the image cannot be read any more ({error.strerror}).") from error
    target = resized_shape(shape, imgsz, stretch=stretch)
    factor = _reduction(shape, target) if _is_jpeg(data) else 1
    image = decode(data, shape, orientation, factor=factor, name=path)
    return resize(image, target)


def resize(image: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    """Image (h, w, 3) as (H, W, 3) for ``target`` (H, W); averages pixels where it shrinks to half or less."""
    if image.shape[:2] == target:
        return image
    shrinks = min(image.shape[0] / target[0], image.shape[1] / target[1]) >= 2
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, target[::-1], interpolation=interpolation)


def _is_jpeg(data: np.ndarray) -> bool:
    return data[:2].tobytes() == b"\xff\xd8"


def _reduction(shape: tuple[int, int], target: tuple[int, int]) -> int:
    """Largest of 8, 4, 2, 1 that leaves at least the target size."""
    ratio = min(shape[0] / target[0], shape[1] / target[1])
    return next((factor for factor in (8, 4, 2) if ratio >= factor), 1)


def decode(
    data: np.ndarray, shape: tuple[int, int], orientation: int = 1, *, factor: int = 1, name: str = "image"
) -> np.ndarray:
    """Decode file content (n,) uint8 to (h, w, 3) uint8 BGR: 16-bit keeps the high byte, grey gets three channels,
    transparency is dropped.

    Raises:
        ValueError: content that cannot be decoded, or whose size is not `shape` / `factor`.
    """
    # What OpenCV turns by itself differs between its versions, so it is asked to turn nothing.
    flags = _REDUCED.get(factor, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    image = None
    if len(data) and data[4:8].tobytes() != b"ftyp":  # AVIF and HEIF: only Pillow tells whether it turned them
        image = cv2.imdecode(data, flags)
        if image is None and _is_jpeg(data):
            image = cv2.imdecode(close_jpeg(data), flags)
    if image is None:
        image = _decode_with_pillow(data)
    if image is None:
        raise ValueError(f"{name}: the image cannot be decoded. Remove it, or save it again as JPEG or PNG.")
    expected = tuple(math.ceil(side / factor) for side in shape)
    image = _turn(image, orientation)
    if image.shape[:2] != expected:
        found = f"{image.shape[1] * factor} x {image.shape[0] * factor}"
        raise ValueError(f"{name}: {found} px, but {shape[1]} x {shape[0]} when it was indexed. Was it replaced?")
    return image


def _decode_with_pillow(data: np.ndarray) -> np.ndarray | None:
    """Formats that this build of OpenCV lacks."""
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(data.tobytes())) as image:
            return np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
    except (OSError, ValueError, SyntaxError):
        return None


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation: transpose for 5..8, then mirror."""
    if orientation == 1:
        return image
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
