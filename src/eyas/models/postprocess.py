"""From predictions to final detections: top-k for the end-to-end branch, exact class-aware NMS for the other.

Legend: ``B`` images, ``A`` anchors, ``C`` classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from eyas.boxes import cxcywh_to_xyxy, pairwise_iou

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MAX_CANDIDATES = 30_000  # rows of one image that enter NMS, best first
NMS_BLOCK = 512  # rows compared with each other at once: 512 x 512 stays in a CPU's cache


def topk_detections(boxes: Tensor, scores: Tensor, max_det: int, *, agnostic: bool = False) -> Tensor:
    """Return the best detections (B, k, 6) x1 y1 x2 y2 score class, k = min(max_det, A).

    ``boxes`` (B, A, 4), ``scores`` (B, A, C). First the k anchors with the highest score of any class, then the k best
    of their k * C scores, so one anchor may appear with several classes. ``agnostic``: one best class for each anchor.
    """
    b, a, c = scores.shape
    k = min(max_det, a)
    best, best_class = scores.max(-1)
    top, anchor = best.topk(k)
    if agnostic:
        label = best_class.gather(1, anchor)
    else:
        candidates = scores.gather(1, anchor[..., None].expand(b, k, c))
        top, flat = candidates.flatten(1).topk(k)
        anchor = anchor.gather(1, flat // c)
        label = flat % c
    chosen = boxes.gather(1, anchor[..., None].expand(b, k, 4))
    return torch.cat((chosen, top[..., None], label[..., None].to(scores.dtype)), -1)


def postprocess(
    preds: Tensor,
    *,
    end2end: bool,
    conf: float,
    iou: float = 0.7,
    max_det: int = 300,
    agnostic: bool = False,
    multi_label: bool = True,
    classes: Sequence[int] | None = None,
) -> list[Tensor]:
    """Return one tensor (n, 6) for each image: x1 y1 x2 y2 in pixels, score, class; best score first.

    ``end2end`` says what ``preds`` is: True, detections (B, k, 6) of the one-to-one branch; False, (B, 4 + C, A)
    cx cy w h in pixels and class scores of the one-to-many branch, which go through NMS with threshold ``iou``.
    ``conf``: only scores above it count. ``multi_label``: an anchor may give a row for every class, not only its best.
    """
    preds = preds.cpu() if end2end else preds
    keep_class = None if classes is None else torch.as_tensor(list(classes), device=preds.device)
    if end2end:
        # Already small: one transfer for the batch, where filtering on the device would wait for it once per image.
        return [_filter(rows, conf, keep_class)[:max_det] for rows in preds]
    results = []
    for pred in preds:
        rows = _candidates(pred, conf, multi_label=multi_label)
        rows = _filter(rows, conf, keep_class)
        rows = rows[rows[:, 4].argsort(descending=True, stable=True)[:MAX_CANDIDATES]]
        groups = torch.zeros_like(rows[:, 5]) if agnostic else rows[:, 5]
        results.append(rows[nms(rows[:, :4], groups, iou, max_det)])
    return results


def _filter(rows: Tensor, conf: float, keep_class: Tensor | None) -> Tensor:
    """Keep rows (n, 6) whose score is above ``conf`` and whose class is wanted."""
    keep = rows[:, 4] > conf
    if keep_class is not None:
        keep = keep & torch.isin(rows[:, 5], keep_class.to(rows.dtype))
    return rows[keep]


def _candidates(pred: Tensor, conf: float, *, multi_label: bool) -> Tensor:
    """Turn one image's (4 + C, A) into rows (n, 6) with a score above ``conf``."""
    scores = pred[4:].T  # (A, C)
    if multi_label and scores.shape[1] > 1:
        anchor, label = (scores > conf).nonzero(as_tuple=True)
        score = scores[anchor, label]
    else:
        best, best_class = scores.max(1)
        anchor = (best > conf).nonzero(as_tuple=True)[0]
        score, label = best[anchor], best_class[anchor]
    boxes = cxcywh_to_xyxy(pred[:4].T[anchor])
    return torch.cat((boxes, score[:, None], label[:, None].to(pred.dtype)), 1)


def nms(boxes: Tensor, groups: Tensor, iou: float, max_keep: int) -> Tensor:
    """Greedy non-maximum suppression; return the indices (m,) of the kept rows, m <= max_keep.

    ``boxes`` (n, 4) corners sorted by falling score, ``groups`` (n,): only rows of one group suppress each other.
    Works through the rows in blocks, and stops as soon as ``max_keep`` rows are kept: since rows come in order of
    score, later ones cannot change that. The result equals that of the loop over single rows.
    """
    kept: list[Tensor] = []
    count = 0
    for start in range(0, boxes.shape[0], NMS_BLOCK):
        stop = min(start + NMS_BLOCK, boxes.shape[0])
        index = torch.arange(start, stop, device=boxes.device)
        if kept:
            earlier = torch.cat(kept)
            index = index[~_overlaps(boxes, groups, earlier, index, iou).any(0)]
        index = index[_greedy(_overlaps(boxes, groups, index, index, iou).triu(1))]
        kept.append(index)
        count += index.shape[0]
        if count >= max_keep:
            break
    return torch.cat(kept)[:max_keep] if kept else torch.zeros(0, dtype=torch.long, device=boxes.device)


def _overlaps(boxes: Tensor, groups: Tensor, first: Tensor, second: Tensor, iou: float) -> Tensor:
    """Return (len(first), len(second)): same group, and an overlap above ``iou``."""
    same = groups[first][:, None] == groups[second][None]
    return same & (pairwise_iou(boxes[first], boxes[second]) > iou)


def _greedy(suppresses: Tensor) -> Tensor:
    """Return the mask (n,) of rows that survive, given (n, n) with [i, j] True only for i < j.

    A row survives when no surviving row suppresses it. Repeating that rule settles row 0 first, then every row whose
    suppressors are settled, so it reaches the greedy answer after as many rounds as the longest chain.
    """
    matrix = suppresses.float()
    keep = torch.ones(matrix.shape[0], dtype=torch.bool, device=matrix.device)
    while True:
        updated = (keep.float() @ matrix) == 0
        if torch.equal(updated, keep):
            return keep
        keep = updated
