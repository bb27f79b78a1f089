"""TIFF files of several pages, one page at a time."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eyas.data.decode import checked_peak, in_bytes, large_images, turn
from eyas.data.depth import REAL, WHOLE, WIDE, White, white_above
from eyas.log import LOGGER

ORIENTATION = 274  # tag of a page
EIGHT_BITS = ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB")
DEPTHS = {"u2": WHOLE, "f2": REAL, "f4": REAL, "f8": REAL}


def page_count(file: str) -> int:
    """Number of pages; 1 where nobody can say, and reading the file will tell why.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        with large_images(), Image.open(file) as image:
            return int(getattr(image, "n_frames", 1))  # a format of one page has no such number
    except (Image.UnidentifiedImageError, SyntaxError, ValueError):
        return 1


def pages(file: str, white: White | None, name: str) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Read (number from 1, (h, w, 3) uint8 BGR) of every page that can be read; the others are counted and named.

    Args:
        file: the TIFF file.
        white: what is white in pages of more than 8 bits; where nothing is known of it, a page's own values tell.
        name: what the file is called in messages.

    Raises:
        ValueError: no page can be read.
    """
    broken: dict[int, str] = {}
    count = page_count(file)
    with large_images():
        image = Image.open(file)
    with image:
        for number in range(1, count + 1):
            try:
                page = _read(image, file, number, white)
            except (OSError, ValueError, SyntaxError, cv2.error) as error:
                broken[number] = str(error)
                continue
            yield number, page
    if len(broken) == count:
        raise ValueError(f"{name}: none of its {count} pages can be read ({broken[1]})")
    if broken:
        listed = ", ".join(map(str, broken))
        LOGGER.warning("%s: %d of %d pages were left out: %s", name, len(broken), count, listed)


def _read(image: Image.Image, file: str, number: int, white: White | None) -> NDArray[np.uint8]:
    """One page (h, w, 3) uint8 BGR, upright: by Pillow, which does not pass over damage; what it lacks, by OpenCV."""
    with large_images():
        image.seek(number - 1)
        if image.mode in EIGHT_BITS:
            return np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
        orientation = int(image.tag_v2.get(ORIENTATION, 1))  # type: ignore[attr-defined]  # it is a TIFF
    read, found = cv2.imreadmulti(file, number - 1, 1, flags=cv2.IMREAD_UNCHANGED)
    if not read or not found:
        raise ValueError("it cannot be decoded")
    page: NDArray = np.asarray(found[0])
    if page.ndim == 3:
        page = page[..., 0] if page.shape[2] < 3 else page[..., :3]  # without transparency
    depth = DEPTHS.get(page.dtype.str[1:], WIDE)
    known = white.of(depth) if white else None
    return in_bytes(turn(page, orientation), known or white_above(checked_peak(page, f"page {number}"), depth))
