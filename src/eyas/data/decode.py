"""Image file -> uint8 BGR array at the size the network needs, with as little work as possible (spec core E.5)."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image

from eyas.data.depth import BYTE, White, peak_of, to_bytes, white_above
from eyas.data.files import FileStat
from eyas.data.image_file import read_image_file
from eyas.data.image_header import close_jpeg, read_header

_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


def resized_shape(shape: tuple[int, int], imgsz: int, *, stretch: bool = False) -> tuple[int, int]:
    """(h, w) after loading: the long side is `imgsz`, the other is rounded up; `stretch` makes both `imgsz`."""
    if stretch:
        return imgsz, imgsz
    height, width = shape
    ratio = imgsz / max(height, width)
    return max(min(math.ceil(height * ratio), imgsz), 1), max(min(math.ceil(width * ratio), imgsz), 1)


def read_image(path: str | os.PathLike[str], white: White | None = None) -> np.ndarray:
    """Whole image at its own size, (h, w, 3) uint8 BGR, EXIF orientation applied.

    Args:
        path: image file.
        white: what is white in images of more than 8 bits; where nothing is known of it, the image's own values tell.

    Raises:
        ValueError: the file is no usable image.
        OSError: the file cannot be read.
    """
    name = os.fspath(path)
    with large_images():
        header, problem = read_header(name)
    if header is None:
        assert problem is not None
        raise ValueError(f"{name}: {problem.kind}: {problem.message}")
    data, shape = read_image_file(path), (header.height, header.width)
    if header.depth == BYTE:
        return decode(data, shape, header.orientation, name=name)
    image = decode_deep(data, shape, header.orientation, name=name)
    top = white.of(header.depth) if white else None
    return in_bytes(image, top or white_above(checked_peak(image, name), header.depth))


@contextmanager
def large_images() -> Iterator[None]:
    """Let Pillow open images of 90 to 180 million pixels without a warning of its own: only their header is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def load_image(
    path: str,
    *,
    shape: tuple[int, int],
    orientation: int = 1,
    white: float | None = None,
    imgsz: int,
    stretch: bool = False,
    indexed: FileStat | None = None,
) -> np.ndarray:
    """Image resized for the network, (h, w, 3) uint8 BGR with (h, w) = `resized_shape(shape, imgsz)`.

    A JPEG at least twice too large is decoded at 1/2, 1/4 or 1/8 of its size, which is several times faster than
    decoding all of it and averages pixels instead of skipping them. Other formats are averaged down likewise.

    Args:
        path: image file.
        shape: (h, w) the index recorded, after orientation.
        orientation: EXIF orientation 1..8 the index recorded.
        white: value of white in an image of more than 8 bits.
        indexed: what the file was from outside when it was indexed; asked of one that lies elsewhere.

    Raises:
        ValueError: the file cannot be decoded, has another shape than recorded, or does not come from elsewhere.
    """
    try:
        data = read_image_file(path, indexed)
    except OSError as error:
        raise ValueError(f"{path}: the image cannot be read any more ({error.strerror}).") from error
    target = resized_shape(shape, imgsz, stretch=stretch)
    if white is not None:
        return resize(in_bytes(decode_deep(data, shape, orientation, name=path), white), target)
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
    """Decode file content (n,) uint8 to (h, w, 3) uint8 BGR: grey gets three channels, transparency is dropped.

    Raises:
        ValueError: content that cannot be decoded, or whose size is not `shape` / `factor`.
    """
    # What OpenCV turns by itself differs between its versions, so it is asked to turn nothing.
    flags = _REDUCED.get(factor, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    image = None
    if not _left_to_pillow(data):
        image = cv2.imdecode(data, flags)
        if image is None and _is_jpeg(data):
            image = cv2.imdecode(close_jpeg(data), flags)
    if image is None:
        image = _decode_with_pillow(data, "RGB")
    return _as_indexed(image, shape, orientation, factor, name)


def decode_deep(data: np.ndarray, shape: tuple[int, int], orientation: int = 1, *, name: str = "image") -> np.ndarray:
    """Decode file content (n,) uint8 of more than 8 bits to (h, w) or (h, w, 3) BGR, values as they are stored.

    Raises:
        ValueError: as for `decode`, and for images of another number of channels.
    """
    image = None if _left_to_pillow(data) else cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if image is None:
        image = _decode_with_pillow(data, None)
    if image is not None and image.ndim == 3:
        if image.shape[2] not in (1, 2, 3, 4):
            raise ValueError(f"{name}: {image.shape[2]} channels; choose three, and save them as an image.")
        image = image[..., 0] if image.shape[2] < 3 else image[..., :3]  # without transparency
    return _as_indexed(image, shape, orientation, 1, name)


def checked_peak(image: np.ndarray, name: str) -> float:
    """The largest value of an image.

    Raises:
        ValueError: its values can be no picture.
    """
    peak = peak_of(image)
    if isinstance(peak, str):
        raise ValueError(f"{name}: {peak}.")
    return peak


def in_bytes(image: np.ndarray, white: float) -> np.ndarray:
    """(h, w) or (h, w, 3) of any values as (h, w, 3) uint8 BGR."""
    values = to_bytes(image, white)
    return cv2.cvtColor(values, cv2.COLOR_GRAY2BGR) if values.ndim == 2 else np.ascontiguousarray(values)


def _left_to_pillow(data: np.ndarray) -> bool:
    """Whether OpenCV is not asked: AVIF and HEIF are turned by some of its versions and not by others, GIF is read by
    some, and it does not scale netpbm's values."""
    start = data[:12].tobytes()
    return not start or start[4:8] == b"ftyp" or start[:4] == b"GIF8" or (start[:1] == b"P" and start[1:2] in b"123456")


def _as_indexed(
    image: np.ndarray | None, shape: tuple[int, int], orientation: int, factor: int, name: str
) -> np.ndarray:
    """A decoded image upright.

    Raises:
        ValueError: there is none, or it has not the shape that was recorded.
    """
    if image is None:
        raise ValueError(f"{name}: the image cannot be decoded. Remove it, or save it again as JPEG or PNG.")
    expected = tuple(math.ceil(side / factor) for side in shape)
    image = turn(image, orientation)
    if image.shape[:2] != expected:
        found = f"{image.shape[1] * factor} x {image.shape[0] * factor}"
        raise ValueError(f"{name}: {found} px, but {shape[1]} x {shape[0]} when it was indexed. Was it replaced?")
    return image


def _decode_with_pillow(data: np.ndarray, mode: str | None) -> np.ndarray | None:
    """(h, w) or (h, w, 3) BGR of formats that OpenCV lacks, in one of Pillow's modes or as stored."""
    try:
        with Image.open(io.BytesIO(data.tobytes())) as image:
            pixels = np.asarray(image.convert(mode) if mode else image)
    except (OSError, ValueError, SyntaxError):
        return None
    return np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation: transpose for 5..8, then mirror."""
    if orientation == 1:
        return image
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
