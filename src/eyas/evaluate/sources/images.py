"""Image files, the pages of TIFF files, and images that are in memory already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eyas.data.decode import read_image
from eyas.data.depth import White
from eyas.evaluate.sources.base import Item, Picture
from eyas.evaluate.sources.tiff import page_count, pages

TIFF_SUFFIXES = frozenset((".tif", ".tiff"))


class ImageFile(Item):
    """An image file; a TIFF of several pages gives a picture for each.

    Args:
        file: where it lies.
        white: as `read_image` takes it.
        name: what its pictures are called; None: the file.
    """

    def __init__(self, file: str, white: White | None = None, name: str | None = None) -> None:
        self.file, self.white, self.name = file, white, name or file

    def pictures(self) -> Iterator[Picture]:
        """Read the image, or its pages; those that cannot be read are left out and named."""
        if Path(self.file).suffix.lower() in TIFF_SUFFIXES and page_count(self.file) > 1:
            for number, page in pages(self.file, self.white, self.name):
                yield Picture(self.name, page, frame=number)
        else:
            yield Picture(self.name, read_image(self.file, self.white))


class Pixels(Item):
    """An image in memory: an array (h, w, 3) BGR, (h, w) or (h, w, 1) of uint8, or a PIL image.

    Args:
        image: what was given.
        name: what the picture is called.
        what: what it is called in messages.

    Raises:
        ValueError: it is something else.
    """

    def __init__(self, image: Any, name: str, what: str) -> None:
        self.name = name
        self.pixels = _pixels(image, what)

    def pictures(self) -> Iterator[Picture]:
        """Give the image."""
        yield Picture(self.name, self.pixels)


def _pixels(image: Any, what: str) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 BGR of an array or PIL image."""
    if not isinstance(image, np.ndarray):
        image = _from_pil(image, what)
    if image.dtype != np.uint8:
        raise ValueError(f"{what} has values of type {image.dtype}: give uint8 values 0..255")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
        hint = ": transpose(1, 2, 0) puts channels last" if image.ndim == 3 and image.shape[0] in (1, 3) else ""
        raise ValueError(
            f"{what} has shape {image.shape}, an image has (height, width, 3), BGR, or (height, width){hint}"
        )
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else np.ascontiguousarray(image)


def _from_pil(image: Any, what: str) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        kind = type(image).__name__
        raise ValueError(f"{what} is a {kind}: give a file name, an array (height, width, 3) uint8 BGR or a PIL image")
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.ascontiguousarray(np.asarray(upright)[:, :, ::-1])
