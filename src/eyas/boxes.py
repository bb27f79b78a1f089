"""Box formats, overlaps and image mapping: pure functions on torch tensors.

``xyxy`` is two corners (x1, y1, x2, y2); ``cxcywh`` is centre and size; ``ltrb`` is the four distances left, top,
right, bottom from a point to the sides of a box. Boxes lie in the last dimension; leading dimensions are free.
Nothing here changes its inputs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

EPS = 1e-7


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert corners (..., 4) to centre and size (..., 4)."""
    low, high = boxes[..., :2], boxes[..., 2:4]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert centre and size (..., 4) to corners (..., 4)."""
    centre, half = boxes[..., :2], boxes[..., 2:4] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def box_area(boxes: Tensor) -> Tensor:
    """Return the area (...) of corner boxes (..., 4); a box with a negative side has area 0."""
    return (boxes[..., 2:4] - boxes[..., :2]).clamp(min=0).prod(-1)


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection area of broadcastable corner boxes (..., 4)."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:4], b[..., 2:4])
    return (high - low).clamp(min=0).prod(-1)


def elementwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union (...), in [0, 1], of broadcastable corner boxes (..., 4)."""
    inter = _intersection(a, b)
    return inter / (box_area(a) + box_area(b) - inter).clamp(min=EPS)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU (N, M) of every corner box of ``a`` (N, 4) with every one of ``b`` (M, 4)."""
    return elementwise_iou(a[:, None], b[None])


def _enclosing(a: Tensor, b: Tensor) -> Tensor:
    """Return width and height (..., 2) of the smallest box around each pair."""
    return torch.maximum(a[..., 2:4], b[..., 2:4]) - torch.minimum(a[..., :2], b[..., :2])


def elementwise_giou(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalised IoU (...), in [-1, 1], of broadcastable corner boxes (Rezatofighi et al., 2019)."""
    inter = _intersection(a, b)
    union = box_area(a) + box_area(b) - inter
    hull = _enclosing(a, b).clamp(min=0).prod(-1).clamp(min=EPS)
    return inter / union.clamp(min=EPS) - (hull - union) / hull


def elementwise_ciou(a: Tensor, b: Tensor) -> Tensor:
    """Return the complete IoU (...), at most 1, of broadcastable corner boxes (Zheng et al., 2020; spec core D.2).

    Areas use signed sides, so a box turned inside out still has a gradient that turns it back.
    The weight of the aspect term carries no gradient.
    """
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    aw, ah, bw, bh = ax2 - ax1, ay2 - ay1 + EPS, bx2 - bx1, by2 - by1 + EPS
    inter_w = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    inter_h = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    inter = inter_w * inter_h
    iou = inter / (aw * ah + bw * bh - inter + EPS)
    hull_w = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    hull_h = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    diagonal = hull_w.square() + hull_h.square() + EPS
    distance = ((bx1 + bx2 - ax1 - ax2).square() + (by1 + by2 - ay1 - ay2).square()) / 4
    aspect = (4 / math.pi**2) * (torch.atan(bw / bh) - torch.atan(aw / ah)).square()
    with torch.no_grad():
        alpha = aspect / (aspect - iou + (1 + EPS))
    return iou - distance / diagonal - alpha * aspect


def distances_to_boxes(ltrb: Tensor, points: Tensor) -> Tensor:
    """Return corner boxes (..., 4) from distances (..., 4) to points (..., 2), all in one unit."""
    return torch.cat((points - ltrb[..., :2], points + ltrb[..., 2:4]), dim=-1)


def boxes_to_distances(boxes: Tensor, points: Tensor) -> Tensor:
    """Return distances l, t, r, b (..., 4) from points (..., 2) to the sides of corner boxes (..., 4)."""
    return torch.cat((points - boxes[..., :2], boxes[..., 2:4] - points), dim=-1)


def clip_boxes(boxes: Tensor, shape: Sequence[int]) -> Tensor:
    """Return corner boxes (..., 4) in pixels, limited to an image of ``shape`` (height, width)."""
    height, width = shape[0], shape[1]
    x = boxes[..., 0::2].clamp(0, width)
    y = boxes[..., 1::2].clamp(0, height)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)


def unletterbox(boxes: Tensor, ratio_pad: Sequence[Sequence[float]], ori_shape: Sequence[int]) -> Tensor:
    """Map corner boxes (..., 4) from network pixels back to the original image and clip them to it.

    ``ratio_pad`` is ((gain_h, gain_w), (left, top)) as the loader stored it; ``ori_shape`` is (height, width).
    """
    (gain_h, gain_w), (left, top) = ratio_pad
    offset = boxes.new_tensor([left, top, left, top])
    gain = boxes.new_tensor([gain_w, gain_h, gain_w, gain_h])
    return clip_boxes((boxes - offset) / gain, ori_shape)
