"""Colour jitter through look-up tables, in uint8 from start to end."""

from __future__ import annotations

import cv2
import numpy as np

_LEVELS = np.arange(256, dtype=np.float64)


def hsv_table(gains: np.ndarray) -> np.ndarray:
    """Look-up table of the HSV jitter (spec core E.6).

    Args:
        gains: (3,) relative gains: hue in units of the full circle (180 in OpenCV), saturation and value as
            x * (1 + gain).

    Returns:
        (1, 256, 3) uint8.
    """
    hue = (_LEVELS + 180.0 * gains[0]) % 180.0
    saturation = np.clip(_LEVELS * (1.0 + gains[1]), 0, 255)
    value = np.clip(_LEVELS * (1.0 + gains[2]), 0, 255)
    return np.stack((hue, saturation, value), axis=1).astype(np.uint8)[None]


def change_contrast(image: np.ndarray, gain: float) -> None:
    """Multiply the distances to the mean grey of a uint8 image by 1 + gain, in place."""
    if gain:
        mean = cv2.mean(image)
        grey = sum(mean[:3]) / 3
        table = np.clip(np.rint(grey + (1.0 + gain) * (_LEVELS - grey)), 0, 255).astype(np.uint8)
        cv2.LUT(image, table, dst=image)


def jitter_hsv(image: np.ndarray, gains: np.ndarray, out: np.ndarray, *, bgr: bool = False) -> None:
    """Jitter the colours of a BGR image and write the result to `out`. The way back from HSV also swaps the channels.

    Args:
        image: (H, W, 3) uint8 BGR.
        gains: (3,), see `hsv_table`; all zero only copies.
        out: (H, W, 3) uint8, becomes RGB, or BGR when `bgr`.
    """
    if not gains.any():
        if bgr:
            out[:] = image
        else:
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=out)
        return
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    cv2.LUT(hsv, hsv_table(gains), dst=hsv)
    cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR if bgr else cv2.COLOR_HSV2RGB, dst=out)
