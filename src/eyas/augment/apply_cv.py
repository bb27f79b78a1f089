"""Applying `SampleParams` with OpenCV: every source image is warped once, straight into the output.

The four warps of a mosaic are composed with the placement on its canvas, so the 2S x 2S canvas never exists:
a fifth of the pixels of the usual way are written, and each is interpolated once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from eyas.augment.color import change_contrast, jitter_hsv
from eyas.augment.geometry import translation, warp_boxes
from eyas.augment.mix import blend_pictures, paste_rectangle
from eyas.augment.params import CUT, MAIN, MIXED, SampleParams

BACKGROUND = 114
# OpenCV warps between pixel indices (centre of pixel j is j), all else here between positions (centre is j + 0.5).
_TO_INDEX, _TO_POSITION = translation(-0.5, -0.5), translation(0.5, 0.5)


def render(
    params: SampleParams, cut: tuple[int, int, int, int] | None, load: Callable[[int], np.ndarray], out: np.ndarray
) -> None:
    """Draw one sample.

    Args:
        params: what to draw.
        cut: the cutmix rectangle chosen by `place_labels`, or None.
        load: dataset index -> (h, w, 3) uint8 BGR; never written to. Any resolution of the image will do.
        out: (S, S, 3) uint8, becomes RGB (BGR when `params.bgr`); may be a view into a batch.
    """
    picture = draw_picture(params, MAIN, load)
    if params.blend < 1.0:
        blend_pictures(picture, draw_picture(params, MIXED, load), params.blend)
    if cut is not None:
        paste_rectangle(picture, draw_picture(params, CUT, load), cut)
    change_contrast(picture, params.contrast)
    jitter_hsv(picture, params.hsv, out, bgr=params.bgr)


def draw_picture(params: SampleParams, number: int, load: Callable[[int], np.ndarray]) -> np.ndarray:
    """One picture of a sample before colour: (S, S, 3) uint8 BGR. Where no source reaches, it is grey 114."""
    picture = np.full((params.size, params.size, 3), BACKGROUND, np.uint8)
    for k in np.flatnonzero(params.picture == number).tolist():
        draw_source(
            picture,
            load(int(params.sources[k])),
            params.matrices[k],
            params.visible[k],
            tuple(params.shapes[k].tolist()),
        )
    return picture


def draw_source(
    picture: np.ndarray, image: np.ndarray, matrix: np.ndarray, visible: np.ndarray, shape: tuple[int, int]
) -> None:
    """Warp the visible part of one source into `picture`, touching only the rectangle that it covers.

    Args:
        picture: (S, S, 3) uint8, changed in place.
        image: (h, w, 3) uint8.
        matrix: (3, 3) source pixels -> picture pixels.
        visible: (4,) xyxy in source pixels.
        shape: (h, w) that `matrix` and `visible` speak of; another resolution of the same image is scaled on the way.
    """
    if image.shape[:2] != shape:
        fx, fy = image.shape[1] / shape[1], image.shape[0] / shape[0]
        matrix = matrix @ np.diag((1 / fx, 1 / fy, 1.0))
        visible = visible * (fx, fy, fx, fy)
    if is_axis_aligned(matrix):
        _draw_upright(picture, image, matrix, visible)
    else:
        _draw_slanted(picture, image, matrix, visible)


def is_axis_aligned(matrix: np.ndarray) -> bool:
    """True for scale, flip and translation only: an upright rectangle stays one."""
    (_, b, _), (d, _, _), (g, h, _) = matrix.tolist()
    return b == d == g == h == 0.0


def _draw_upright(picture: np.ndarray, image: np.ndarray, matrix: np.ndarray, visible: np.ndarray) -> None:
    """Write exactly the pixels whose centres lie in the warped rectangle: neighbours meet without gap or overlap."""
    (a, _, c), (_, e, f), _ = matrix.tolist()
    x1, y1, x2, y2 = visible.tolist()
    height, width = picture.shape[:2]
    left, right = sorted((a * x1 + c, a * x2 + c))
    top, bottom = sorted((e * y1 + f, e * y2 + f))
    x0, x3 = max(math.ceil(left - 0.5), 0), min(math.ceil(right - 0.5), width)
    y0, y3 = max(math.ceil(top - 0.5), 0), min(math.ceil(bottom - 0.5), height)
    if x0 >= x3 or y0 >= y3:
        return
    # The half-pixel shifts of `_TO_INDEX @ matrix @ _TO_POSITION`, written out: this runs four times for each sample.
    affine = np.array(((a, 0.0, c + 0.5 * a - 0.5 - x0), (0.0, e, f + 0.5 * e - 0.5 - y0)))
    cv2.warpAffine(
        image,
        affine,
        (x3 - x0, y3 - y0),
        dst=picture[y0:y3, x0:x3],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _draw_slanted(picture: np.ndarray, image: np.ndarray, matrix: np.ndarray, visible: np.ndarray) -> None:
    """Rotation, shear or perspective: warped into a scratch image, then copied where a source pixel lies.

    OpenCV's own way, BORDER_TRANSPARENT, treats the rim of a source differently in versions 4 (left out: grey seams
    between the images of a mosaic) and 5 (blended with what is there), hence the mask.
    """
    height, width = picture.shape[:2]
    bounds, in_front = warp_boxes(visible[None], matrix)
    x0, y0, x3, y3 = 0, 0, width, height
    if in_front[0]:
        left, top, right, bottom = bounds[0].tolist()
        x0, y0, x3, y3 = (
            max(math.floor(left), 0),
            max(math.floor(top), 0),
            min(math.ceil(right), width),
            min(math.ceil(bottom), height),
        )
    if x0 >= x3 or y0 >= y3:
        return
    matrix = translation(-x0, -y0) @ matrix
    size = (x3 - x0, y3 - y0)
    warp = _TO_INDEX @ matrix @ _TO_POSITION
    if warp[2, 0] == warp[2, 1] == 0.0:
        warped = cv2.warpAffine(image, warp[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    else:
        warped = cv2.warpPerspective(image, warp, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cv2.copyTo(warped, covered_pixels(matrix, visible, size), picture[y0:y3, x0:x3])


def covered_pixels(matrix: np.ndarray, visible: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres show a point of the source rectangle `visible` (4,) xyxy.

    A point p = (x, y, 1) of the output shows the source point (u/d, v/d) with (u, v, d) = inverse(matrix) p. It lies in
    the rectangle where five linear functions of p are >= 0, so each row of pixels is covered between two columns.

    Returns:
        (height, width) uint8, 1 where covered.
    """
    width, height = size
    x1, y1, x2, y2 = visible.tolist()
    u, v, d = np.linalg.inv(matrix)
    planes = np.stack((u - x1 * d, x2 * d - u, v - y1 * d, y2 * d - v, d))
    slope = planes[:, :1]
    rest = planes[:, 1:2] * (np.arange(height) + 0.5) + planes[:, 2:]
    flat = slope == 0.0
    edge = -rest / np.where(flat, 1.0, slope) - 0.5
    first = np.where(slope > 0, edge, np.where(flat & (rest < 0), np.inf, -np.inf)).max(axis=0)
    last = np.where(slope < 0, edge, np.inf).min(axis=0)
    columns = np.arange(width, dtype=np.float32)
    return ((columns >= first.astype(np.float32)[:, None]) & (columns <= last.astype(np.float32)[:, None])).view(
        np.uint8
    )
