"""Greedy one-to-one matching of detections to ground truth, for many images and IoU thresholds at once.

Legend: N detections, M ground-truth boxes, P overlapping (detection, ground truth) pairs, T thresholds.

The rule (spec core F.2) is a queue: in descending score, each detection takes the unclaimed ground truth of its image
and class with the highest IoU, if that IoU reaches the threshold. Because every ground truth prefers the same detection
(the one with the higher score), the queue has exactly one stable outcome, and rounds of propose-and-reject (Gale and
Shapley 1962) reach it: all images and thresholds in the same few array operations, no Python step per detection.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IOU_THRESHOLDS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
"""The ten thresholds of COCO's AP."""
IOU_THRESHOLDS.setflags(write=False)

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Detection index (P,), ground-truth index (P,), IoU (P,)."""


def match_detections(
    det_boxes: NDArray,
    det_scores: NDArray,
    det_cls: NDArray,
    det_image: NDArray,
    gt_boxes: NDArray,
    gt_cls: NDArray,
    gt_image: NDArray,
    *,
    thresholds: NDArray = IOU_THRESHOLDS,
    class_aware: bool = True,
    among: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Match the detections of any number of images with their ground truth (spec core F.2).

    Args:
        det_boxes: (N, 4) xyxy, any unit.
        det_scores: (N,) higher goes first; equal scores keep the order given.
        det_cls: (N,) class ids, >= 0.
        det_image: (N,) image index of each detection.
        gt_boxes: (M, 4) xyxy, same unit.
        gt_cls: (M,) class ids, >= 0.
        gt_image: (M,) image index of each box.
        thresholds: (T,) lowest IoU that counts, each > 0.
        class_aware: False lets a detection match ground truth of another class.
        among: (N, T) detections that take part at each threshold; None for all.

    Returns:
        (N, T) index of the ground truth claimed at each threshold, -1 where there is none.
    """
    num_det, num_gt = len(det_boxes), len(gt_boxes)
    if num_det == 0 or num_gt == 0:
        return np.full((num_det, len(thresholds)), -1, dtype=np.int64)
    det_group, gt_group = np.asarray(det_image, np.int64), np.asarray(gt_image, np.int64)
    if class_aware:
        classes = int(max(np.max(det_cls), np.max(gt_cls))) + 1
        det_group = det_group * classes + np.asarray(det_cls, np.int64)
        gt_group = gt_group * classes + np.asarray(gt_cls, np.int64)
    pairs = _overlapping_pairs(det_boxes, det_group, gt_boxes, gt_group, lowest_iou=float(np.min(thresholds)))
    return _assign(pairs, _priority(det_scores), num_gt, thresholds, among)


def excused(
    det_boxes: NDArray,
    det_cls: NDArray,
    det_image: NDArray,
    matched: NDArray[np.bool_],
    area_boxes: NDArray,
    area_kind: NDArray,
    area_image: NDArray,
    classes: NDArray[np.bool_],
    *,
    thresholds: NDArray = IOU_THRESHOLDS,
) -> NDArray[np.bool_]:
    """Which detections are neither right nor wrong, as COCO decides it for crowds: matched with no object, and lying in
    an area where their class was not annotated, by at least the threshold's share of themselves.

    Args:
        det_boxes: (N, 4) xyxy, any unit.
        det_cls: (N,) class ids.
        det_image: (N,) image index of each detection.
        matched: (N, T) bool, detections that have an object at each threshold.
        area_boxes: (M, 4) xyxy, same unit.
        area_kind: (M,) row of `classes`.
        area_image: (M,) image index of each area.
        classes: (S, C) bool, which classes were not annotated.
        thresholds: (T,) lowest share of the detection.

    Returns:
        (N, T) bool.
    """
    share = np.zeros(len(det_boxes))
    if len(share) and len(area_boxes):
        det, area = _pairs_of_groups(np.asarray(det_image, np.int64), np.asarray(area_image, np.int64))
        mine = classes[np.asarray(area_kind)[area], np.asarray(det_cls, np.int64)[det]]
        det, area = det[mine], area[mine]
        np.maximum.at(share, det, paired_share(np.asarray(det_boxes)[det], np.asarray(area_boxes)[area]))
    return (share[:, None] >= thresholds) & ~matched


def match_iou_matrix(iou: NDArray, *, thresholds: NDArray = IOU_THRESHOLDS) -> NDArray[np.int64]:
    """Match one image and class from its IoU matrix; columns are detections in descending score.

    Args:
        iou: (M, N) IoU of every ground truth with every detection.
        thresholds: (T,) lowest IoU that counts, each > 0.

    Returns:
        (N, T) index of the ground truth claimed at each threshold, -1 where there is none.
    """
    matrix = np.asarray(iou, np.float64)
    gt, det = np.nonzero(matrix >= np.min(thresholds))
    return _assign((det, gt, matrix[gt, det]), np.arange(matrix.shape[1]), matrix.shape[0], thresholds)


def paired_iou(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """IoU of row i of `a` (P, 4) with row i of `b` (P, 4), xyxy; 0 where both boxes are empty."""
    intersection, area_a, area_b = _paired_areas(a, b)
    union = area_a + area_b - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def paired_share(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Share of row i of `a` (P, 4) that lies in row i of `b` (P, 4), xyxy; 0 for an empty box."""
    intersection, area, _ = _paired_areas(a, b)
    return np.divide(intersection, area, out=np.zeros_like(area), where=area > 0)


def _paired_areas(a: NDArray, b: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Areas (P,) of what row i of `a` and row i of `b` share, of `a` and of `b`."""
    # Columns, not rows: numpy reduces an axis of length 2 or 4 several times more slowly.
    ax1, ay1, ax2, ay2 = np.asarray(a, np.float64).T
    bx1, by1, bx2, by2 = np.asarray(b, np.float64).T
    width = np.maximum(np.minimum(ax2, bx2) - np.maximum(ax1, bx1), 0.0)
    height = np.maximum(np.minimum(ay2, by2) - np.maximum(ay1, by1), 0.0)
    area_a = np.maximum(ax2 - ax1, 0.0) * np.maximum(ay2 - ay1, 0.0)
    area_b = np.maximum(bx2 - bx1, 0.0) * np.maximum(by2 - by1, 0.0)
    return width * height, area_a, area_b


def _priority(scores: NDArray) -> NDArray[np.int64]:
    """Place of each detection in the queue: 0 for the highest score."""
    place = np.empty(len(scores), dtype=np.int64)
    place[np.argsort(-np.asarray(scores, np.float64), kind="stable")] = np.arange(len(scores))
    return place


def _overlapping_pairs(
    det_boxes: NDArray, det_group: NDArray, gt_boxes: NDArray, gt_group: NDArray, *, lowest_iou: float
) -> Pairs:
    """All pairs of the same group (image and class) whose IoU is at least `lowest_iou`."""
    det, gt = _pairs_of_groups(det_group, gt_group)
    iou = paired_iou(det_boxes[det], gt_boxes[gt])
    keep = iou >= lowest_iou
    return det[keep], gt[keep], iou[keep]


def _pairs_of_groups(det_group: NDArray, gt_group: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (P,) and (P,) of all pairs of the same group."""
    by_group = np.argsort(gt_group, kind="stable")
    sorted_group = gt_group[by_group]
    first = np.searchsorted(sorted_group, det_group, side="left")
    count = np.searchsorted(sorted_group, det_group, side="right") - first
    return np.repeat(np.arange(len(det_group)), count), by_group[np.repeat(first, count) + _ramps(count)]


def _ramps(count: NDArray) -> NDArray[np.int64]:
    """0, 1, ..., count[i]-1 for each i, one after the other."""
    ends = np.cumsum(count)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - count, count)


def _assign(
    pairs: Pairs, priority: NDArray, num_gt: int, thresholds: NDArray, among: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Propose-and-reject over all (detection, threshold) nodes; see the module's head for why it equals the queue."""
    num_det, num_thr = len(priority), len(thresholds)
    matched = np.full((num_det, num_thr), -1, dtype=np.int64)
    det, gt, iou = pairs
    if len(det) == 0:
        return matched
    order = np.lexsort((gt, -iou, det))  # each detection's wishes: best IoU first, then the lower ground-truth index
    det, gt, iou = det[order], gt[order], iou[order]
    first = np.searchsorted(det, np.arange(num_det), side="left")
    # A detection's pairs descend in IoU, so the ones that reach a threshold are the first `wishes` of them.
    wishes = np.stack([np.bincount(det[iou >= t], minlength=num_det) for t in thresholds], axis=1)
    wishes = wishes if among is None else wishes * among
    node_det, node_thr = np.nonzero(wishes)
    wish = first[node_det]
    last = wish + wishes[node_det, node_thr] - 1
    place = priority[node_det]
    while True:
        slot = gt[wish] * num_thr + node_thr
        holder = np.full(num_gt * num_thr, num_det, dtype=np.int64)
        np.minimum.at(holder, slot, place)
        rejected = holder[slot] != place
        if not rejected.any():
            break
        alive = ~rejected | (wish < last)
        wish = (wish + rejected)[alive]
        node_det, node_thr, last, place = node_det[alive], node_thr[alive], last[alive], place[alive]
    matched[node_det, node_thr] = gt[wish]
    return matched
