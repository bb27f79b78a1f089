"""Matrices and boxes of the geometric augmentations: NumPy only, no images.

Shapes: K sources, n boxes. Boxes are xyxy in pixels; matrices are 3x3 and act on column vectors (x, y, 1) in continuous
coordinates.
"""

from __future__ import annotations

import math

import numpy as np

# Spec core E.6: what a box must keep to stay a training target.
MIN_SIDE_PX = 2.0
MAX_ASPECT = 100.0
MIN_AREA_RATIO = 0.10
_EPS = 1e-9


def loaded_shapes(shapes: np.ndarray, imgsz: int, *, stretch: bool = False) -> np.ndarray:
    """Sizes of images after loading: the long side is `imgsz`, the other one rounded up (spec core E.5).

    Args:
        shapes: (..., 2) original (h, w).
        imgsz: long side in pixels.
        stretch: both sides become `imgsz`.

    Returns:
        (..., 2) int64 (h, w).
    """
    sizes = np.asarray(shapes, dtype=np.int64)
    if stretch:
        return np.full_like(sizes, imgsz)
    long_side = np.maximum(sizes.max(axis=-1, keepdims=True), 1)
    return np.clip(-(-sizes * imgsz // long_side), 1, imgsz)  # integer ceil: no rounding noise


def translation(x: float, y: float) -> np.ndarray:
    """(3, 3) matrix moving points by (x, y)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def flip_matrix(size: int, *, up_down: bool, left_right: bool) -> np.ndarray:
    """(3, 3) matrix flipping a square picture of `size` pixels."""
    matrix = np.eye(3)
    if left_right:
        matrix[0] = (-1.0, 0.0, size)
    if up_down:
        matrix[1] = (0.0, -1.0, size)
    return matrix


def perspective_matrix(
    *,
    size_in: tuple[float, float],
    size_out: int,
    degrees: float,
    zoom: float,
    shear: tuple[float, float],
    perspective: tuple[float, float],
    centre: tuple[float, float],
) -> np.ndarray:
    """The random affine or perspective step M = T S R P C (spec core E.6).

    Args:
        size_in: (w, h) of what is warped; its centre is the fixed point.
        size_out: side of the square output in pixels.
        degrees: rotation, counter-clockwise as seen on the screen.
        zoom: scale factor.
        shear: two angles in degrees.
        perspective: two perspective terms.
        centre: where the input's centre lands, in units of the output side.

    Returns:
        (3, 3) float64.
    """
    to_centre = translation(-size_in[0] / 2, -size_in[1] / 2)
    tilt = np.eye(3)
    tilt[2, :2] = perspective
    cos, sin = zoom * math.cos(math.radians(degrees)), zoom * math.sin(math.radians(degrees))
    rotate = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    slant = np.eye(3)
    slant[0, 1], slant[1, 0] = math.tan(math.radians(shear[0])), math.tan(math.radians(shear[1]))
    return translation(centre[0] * size_out, centre[1] * size_out) @ slant @ rotate @ tilt @ to_centre


def mosaic_cells(centre: tuple[int, int], shapes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the four images of a mosaic lie on the 2S x 2S canvas (spec core E.6).

    They touch `centre` with one corner each, in the order top-left, top-right, bottom-left, bottom-right, and what
    leaves the canvas is cut off.

    Args:
        centre: (x, y) on the canvas, whole pixels.
        shapes: (4, 2) (h, w) of the images.
        size: S, the output side.

    Returns:
        offsets: (4, 2) float64 (x, y) of each image's own corner on the canvas, may be negative.
        visible: (4, 4) float64 xyxy part of each image on the canvas, in that image's pixels.
    """
    heights, widths = shapes[:, 0].astype(np.float64), shapes[:, 1].astype(np.float64)
    left, top = np.array([True, False, True, False]), np.array([True, True, False, False])
    x, y = centre[0] - widths * left, centre[1] - heights * top
    visible = np.stack(
        (np.maximum(-x, 0), np.maximum(-y, 0), np.minimum(2 * size - x, widths), np.minimum(2 * size - y, heights)),
        axis=1,
    )
    return np.stack((x, y), axis=1), visible


def corners(boxes: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """(n, 4) normalised cxcywh -> (n, 4) float64 xyxy in pixels of images (h, w): (2,), or (n, 2) one for each box."""
    boxes = boxes.astype(np.float64)
    half = boxes[:, 2:] / 2
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1) * shapes[..., [1, 0, 1, 0]]


def box_corners(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) xyxy -> (n, 4, 2) corners, clockwise from the top left."""
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def warp_boxes(boxes: np.ndarray, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the four warped corners of each box.

    Args:
        boxes: (n, 4) xyxy.
        matrices: (3, 3), or (n, 3, 3) one for each box.

    Returns:
        bounds: (n, 4) float64 xyxy; meaningless where not `in_front`.
        in_front: (n,) bool, False where a perspective put a corner on or behind the horizon.
    """
    matrices = np.broadcast_to(matrices, (len(boxes), 3, 3))
    points = box_corners(boxes) @ matrices[:, :2, :2].transpose(0, 2, 1) + matrices[:, None, :2, 2]
    depth = box_corners(boxes) @ matrices[:, 2, :2, None] + matrices[:, None, 2:, 2]
    in_front = (depth > _EPS).all(axis=(1, 2))
    points = points / np.where(depth > _EPS, depth, 1.0)
    return np.concatenate((points.min(axis=1), points.max(axis=1)), axis=1), in_front


def clip_to(boxes: np.ndarray, limits: np.ndarray | tuple[float, float, float, float]) -> np.ndarray:
    """Clip (n, 4) xyxy boxes to one rectangle (4,) or to one for each box (n, 4)."""
    low, high = np.asarray(limits)[..., :2], np.asarray(limits)[..., 2:]
    return np.concatenate((np.clip(boxes[:, :2], low, high), np.clip(boxes[:, 2:], low, high)), axis=1)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """(n,) areas of (n, 4) xyxy boxes."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def keep_rule(areas_before: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which warped and clipped boxes stay training targets (spec core E.6).

    Args:
        areas_before: (n,) areas before the warp, times zoom squared.
        boxes: (n, 4) xyxy after warp and clip.

    Returns:
        (n,) bool: both sides > 2 px, aspect < 100, more than 10 % of the area left.
    """
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    aspect = np.maximum(w, h) / np.maximum(np.minimum(w, h), _EPS)
    ratio = w * h / np.maximum(areas_before, _EPS)
    return (
        (areas_before > _EPS) & (w > MIN_SIDE_PX) & (h > MIN_SIDE_PX) & (aspect < MAX_ASPECT) & (ratio > MIN_AREA_RATIO)
    )
