"""Pictures as part of a page: of notebooks, whose viewers give them neither style sheets nor scripts nor files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray

QUALITY = 80  # of JPEGs


def side_by_side(parts: Sequence[str]) -> str:
    """Return parts of HTML on as many lines as they need; nothing for none."""
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(parts)}</div>' if parts else ""


def embedded(kind: str, content: bytes, title: str = "", width: int | None = None) -> str:
    """Return an image whose file is part of the page.

    Args:
        kind: of the file, such as ``jpeg`` or ``svg+xml``.
        content: of the file.
        title: plain text, told under the pointer.
        width: pixels on the page; None for those of the file.
    """
    data = base64.b64encode(content).decode()
    size = f' width="{width}"' if width else ""
    told = f' alt="{escape(title)}" title="{escape(title)}"' if title else ""
    return f'<img src="data:image/{kind};base64,{data}"{size}{told}>'


def jpeg(image: NDArray[np.uint8], title: str = "") -> str:
    """Return a picture (h, w, 3) BGR as part of a page."""
    written, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return embedded("jpeg", content.tobytes(), title) if written else ""


def sized(image: NDArray[np.uint8], side: int, enlarged: bool = True) -> tuple[NDArray[np.uint8], float]:
    """Return an image (h, w, 3) with a longer side of ``side`` pixels, and its scale.

    Args:
        image: to be drawn on afterwards, so that lines and letters have the same size on every picture.
        side: pixels.
        enlarged: False leaves a smaller image as it is.
    """
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1 and not enlarged:
        return image, 1.0
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8), scale
