"""The boxes of an augmented sample: the label side of `SampleParams`, still without touching an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from eyas.augment.geometry import box_areas, clip_to, corners, keep_rule, warp_boxes
from eyas.augment.params import CUT, SampleParams

Labels = tuple[np.ndarray, np.ndarray]
"""cls (n,) float32 and boxes (n, 4) float32 normalised cxcywh of one source image."""

MIN_CUT_SHARE = 0.10  # a box of the cut picture comes along when 10 % of it lies inside the rectangle (spec core E.6)


class Placed(NamedTuple):
    """Labels of a finished sample.

    Attributes:
        cls: (n,) float32 class numbers.
        boxes: (n, 4) float32 xyxy in output pixels, inside [0, S].
        cut: (x1, y1, x2, y2) of the cutmix rectangle in output pixels, or None when nothing is pasted.
    """

    cls: np.ndarray
    boxes: np.ndarray
    cut: tuple[int, int, int, int] | None


def place_labels(params: SampleParams, labels: Callable[[int], Labels]) -> Placed:
    """Carry the labels of all sources into the output.

    Args:
        params: the sample.
        labels: dataset index -> labels of that image.
    """
    cls, boxes, source = _source_boxes(params, labels)
    boxes = clip_to(boxes, params.visible[source])
    areas = box_areas(boxes) * params.zooms[source] ** 2
    boxes, in_front = warp_boxes(boxes, params.matrices[source])
    boxes = clip_to(boxes, (0, 0, params.size, params.size))
    keep = in_front & keep_rule(areas, boxes)
    cls, boxes, picture = cls[keep], boxes[keep], params.picture[source[keep]]
    if not len(params.cut_candidates):
        return Placed(cls, boxes.astype(np.float32), None)

    pasted = picture == CUT
    cut = choose_cut(params.cut_candidates, boxes[~pasted])
    taken, inside = cut_boxes(boxes[pasted], cut)
    cls = np.concatenate((cls[~pasted], cls[pasted][inside]))
    boxes = np.concatenate((boxes[~pasted], taken))
    return Placed(cls, boxes.astype(np.float32), cut)


def place_areas(
    params: SampleParams, areas: Callable[[int], Labels], cut: tuple[int, int, int, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Carry areas to ignore of all sources into the output; of each, all that can be seen stays, however little.

    Args:
        params: the sample.
        areas: dataset index -> kinds (m,) and boxes (m, 4) normalised cxcywh of that image.
        cut: as `place_labels` returned it.

    Returns:
        kind: (m,) int64.
        boxes: (m, 4) float32 xyxy in output pixels, inside [0, S]; of a turned area the upright box that holds it.
    """
    kind, boxes, source = _source_boxes(params, areas)
    boxes, in_front = warp_boxes(clip_to(boxes, params.visible[source]), params.matrices[source])
    pasted = params.picture[source] == CUT
    boxes[pasted] = clip_to(boxes[pasted], cut or (0, 0, 0, 0))
    boxes = clip_to(boxes, (0, 0, params.size, params.size))
    seen = in_front & (box_areas(boxes) > 0)
    return kind[seen], boxes[seen].astype(np.float32)


def choose_cut(candidates: np.ndarray, boxes: np.ndarray) -> tuple[int, int, int, int] | None:
    """The first of (c, 4) rectangles with an area that touches none of (n, 4) boxes, or None."""
    for x1, y1, x2, y2 in candidates.tolist():
        apart = (boxes[:, 2] <= x1) | (boxes[:, 0] >= x2) | (boxes[:, 3] <= y1) | (boxes[:, 1] >= y2)
        if x2 > x1 and y2 > y1 and apart.all():
            return x1, y1, x2, y2
    return None


def cut_boxes(boxes: np.ndarray, cut: tuple[int, int, int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that come along with the pasted rectangle.

    Returns:
        taken: (m, 4) clipped to the rectangle.
        inside: (n,) bool, which ones were taken.
    """
    if cut is None:
        return boxes[:0], np.zeros(len(boxes), bool)
    clipped = clip_to(boxes, cut)
    inside = box_areas(clipped) >= MIN_CUT_SHARE * box_areas(boxes)
    return clipped[inside], inside


def _source_boxes(params: SampleParams, labels: Callable[[int], Labels]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes (n,), boxes (n, 4) xyxy in source pixels and the source number (n,) of all labels of a sample."""
    pairs = [labels(index) for index in params.sources.tolist()]
    source = np.repeat(np.arange(len(pairs)), [len(cls) for cls, _ in pairs])
    cls = np.concatenate([cls for cls, _ in pairs])
    boxes = np.concatenate([boxes for _, boxes in pairs])
    return cls, corners(boxes, params.shapes[source]), source
