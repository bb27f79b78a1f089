"""Mixing pictures: mixup blends two, cutmix pastes a rectangle. Both change the first picture in place."""

from __future__ import annotations

import cv2
import numpy as np


def blend_pictures(picture: np.ndarray, other: np.ndarray, weight: float) -> None:
    """picture <- weight * picture + (1 - weight) * other, both (H, W, 3) uint8, weight in [0, 1]."""
    cv2.addWeighted(picture, weight, other, 1.0 - weight, 0.0, dst=picture)


def paste_rectangle(picture: np.ndarray, other: np.ndarray, cut: tuple[int, int, int, int]) -> None:
    """Copy the rectangle `cut` (xyxy pixels) of `other` into `picture`, both (H, W, 3) uint8."""
    x1, y1, x2, y2 = cut
    picture[y1:y2, x1:x2] = other[y1:y2, x1:x2]
