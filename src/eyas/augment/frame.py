"""What part of the plane a lone image shows: all of it small in a larger frame, or a part of it large.

Both are windows in the pixels of the loaded image; the affine step then sees the window in place of the image. Ranges
are those of RT-DETR's recipe (spec detr 1.9), which are torchvision's `RandomZoomOut` and `RandomIoUCrop`.
"""

from __future__ import annotations

import numpy as np

from eyas.augment.geometry import box_areas, clip_to, translation

GREATEST_FRAME = 4.0  # times the sides of the image
CROP_SIDES = (0.3, 1.0)  # of the frame's
CROP_ASPECT = (0.5, 2.0)  # width / height, where the frame's is 1
CROP_TRIALS = 40
CROP_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # IoU that some box must have with the crop; 1: no crop


def larger_frame(shape: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return the window (4,) xyxy of a frame 1 to 4 times as wide and high, the image anywhere inside.

    Args:
        shape: (2,) h, w of the image in pixels.
        draws: (3,) uniform numbers: size, and place of the image in x and y.
    """
    sides = np.array((shape[1], shape[0]), np.float64)
    growth = (GREATEST_FRAME - 1.0) * draws[0]
    corner = -growth * sides * draws[1:3]
    return np.concatenate((corner, corner + (1.0 + growth) * sides))


def crop_with_objects(window: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a part of a window that shows an object, or the window itself.

    Overlaps are tried in random order; the first that one of `CROP_TRIALS` random parts reaches is taken. Only boxes
    whose centre lies in a part count for it.

    Args:
        window: (4,) xyxy pixels.
        boxes: (n, 4) xyxy pixels of the image's objects.
        rng: draws parts and the order of overlaps.
    """
    origin, sides = window[:2], window[2:] - window[:2]
    draws = rng.random((CROP_TRIALS, 4))
    shares = CROP_SIDES[0] + (CROP_SIDES[1] - CROP_SIDES[0]) * draws[:, :2]
    low = origin + draws[:, 2:] * (1.0 - shares) * sides
    parts = np.concatenate((low, low + shares * sides), axis=1)
    aspect = shares[:, 0] / shares[:, 1]
    upright = (aspect >= CROP_ASPECT[0]) & (aspect <= CROP_ASPECT[1])
    reached = np.where(upright, greatest_overlaps(parts, boxes), -1.0)
    for overlap in rng.permutation(CROP_OVERLAPS).tolist():
        if overlap == 1.0:
            break
        good = np.flatnonzero(reached >= overlap)
        if len(good):
            return np.asarray(parts[good[0]])
    return window


def greatest_overlaps(parts: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(c,) greatest IoU of each of (c, 4) parts with one of (n, 4) boxes centred in it; -1 where none is."""
    if not len(boxes):
        return np.full(len(parts), -1.0)
    each = np.repeat(parts, len(boxes), axis=0)
    every = np.tile(boxes, (len(parts), 1))
    centre = (every[:, :2] + every[:, 2:]) / 2
    inside = ((centre > each[:, :2]) & (centre < each[:, 2:])).all(axis=1)
    common = box_areas(clip_to(every, each))
    overlap = common / np.maximum(box_areas(each) + box_areas(every) - common, 1e-9)
    return np.asarray(np.where(inside, overlap, -1.0).reshape(len(parts), len(boxes)).max(axis=1))


def onto_image(window: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """(3, 3) matrix that stretches a window to where the image (h, w) lies, as if that were what was loaded."""
    (left, top), sides = window[:2], window[2:] - window[:2]
    return np.diag((shape[1] / sides[0], shape[0] / sides[1], 1.0)) @ translation(-left, -top)
