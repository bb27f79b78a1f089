"""TIFF files of several pages, one page at a time."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eyas.data.decode import checked_peak, in_bytes, large_images, turn
from eyas.data.depth import BYTE, REAL, WHOLE, WIDE, White, white_above
from eyas.log import LOGGER

ORIENTATION = 274  # tag of a page
DEPTHS = {"u1": BYTE, "u2": WHOLE, "f2": REAL, "f4": REAL, "f8": REAL}


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
    orientations = _orientations(file)
    broken: dict[int, str] = {}
    for number, orientation in enumerate(orientations, 1):
        try:
            page = _read(file, number, orientation, white)
        except (ValueError, cv2.error) as error:
            broken[number] = str(error)
            continue
        yield number, page
    if len(broken) == len(orientations):
        raise ValueError(f"{name}: none of its {len(broken)} pages can be read ({broken[1]})")
    if broken:
        listed = ", ".join(map(str, broken))
        LOGGER.warning("%s: %d of %d pages were left out: %s", name, len(broken), len(orientations), listed)


def _orientations(file: str) -> list[int]:
    with large_images(), Image.open(file) as image:
        found = []
        for page in range(int(image.n_frames)):  # type: ignore[attr-defined]  # known to be a TIFF
            image.seek(page)
            found.append(int(image.tag_v2.get(ORIENTATION, 1)))  # type: ignore[attr-defined]
        return found


def _read(file: str, number: int, orientation: int, white: White | None) -> NDArray[np.uint8]:
    read, found = cv2.imreadmulti(file, number - 1, 1, flags=cv2.IMREAD_UNCHANGED)
    if not read or not found:
        raise ValueError("it cannot be decoded")
    page: NDArray = np.asarray(found[0])
    if page.ndim == 3:
        page = page[..., 0] if page.shape[2] < 3 else page[..., :3]  # without transparency
    page = turn(page, orientation)
    depth = DEPTHS.get(page.dtype.str[1:], WIDE)
    if depth == BYTE:
        return np.ascontiguousarray(page if page.ndim == 3 else np.repeat(page[..., None], 3, axis=2))
    known = white.of(depth) if white else None
    return in_bytes(page, known or white_above(checked_peak(page, f"page {number}"), depth))
