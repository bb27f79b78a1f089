"""Letterbox: fit an image into a rectangle, padding evenly (spec core C.5)."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

PAD_VALUE = 114


STRIDE = 32  # pixels per cell of the coarsest level


class Fit(NamedTuple):
    """Where an image lands in the rectangle.

    Attributes:
        height, width: size of the resized image in pixels.
        top, bottom, left, right: padding in pixels.
    """

    height: int
    width: int
    top: int
    bottom: int
    left: int
    right: int


def fit_letterbox(
    shape: tuple[int, int], target: tuple[int, int], *, scale_up: bool = True, auto: bool = False, stride: int = 32
) -> Fit:
    """Size and padding of a letterboxed image.

    Args:
        shape: (h, w) of the image.
        target: (H, W) of the rectangle.
        scale_up: enlarge small images.
        auto: pad only up to the next multiple of `stride` (a batch of equal shapes in prediction).
    """
    h, w = shape
    ratio = min(target[0] / h, target[1] / w)
    if not scale_up:
        ratio = min(ratio, 1.0)
    height, width = max(round(h * ratio), 1), max(round(w * ratio), 1)
    dh, dw = target[0] - height, target[1] - width
    if auto:
        dh, dw = dh % stride, dw % stride
    return Fit(height, width, *_halves(dh), *_halves(dw))


def _halves(total: int) -> tuple[int, int]:
    return round(total / 2 - 0.1), round(total / 2 + 0.1)


def letterbox_into(image: np.ndarray, out: np.ndarray, *, scale_up: bool = False) -> Fit:
    """Write a BGR image, letterboxed, as RGB.

    Args:
        image: (h, w, 3) uint8 BGR.
        out: (H, W, 3) uint8, becomes RGB; may be a view into a batch.
        scale_up: enlarge small images.
    """
    fit = fit_letterbox(image.shape[:2], out.shape[:2], scale_up=scale_up)
    if image.shape[:2] != (fit.height, fit.width):
        image = cv2.resize(image, (fit.width, fit.height), interpolation=cv2.INTER_LINEAR)
    if fit.height < out.shape[0] or fit.width < out.shape[1]:
        out[:] = PAD_VALUE
    cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=out[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width])
    return fit


def padded(imgsz: int) -> int:
    """Network input side in pixels: ``imgsz`` rounded up to a multiple of the stride."""
    return -(-imgsz // STRIDE) * STRIDE
