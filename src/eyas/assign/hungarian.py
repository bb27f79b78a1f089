"""One query for each object: the cheapest one-to-one matching of all supervised outputs (Carion et al., 2020).

Legend: ``N`` supervised outputs, ``B`` images, ``Q`` queries, ``T`` objects of the whole batch, ``C`` classes.

Objects stay in one flat list of T rows with the image each belongs to, as in `eyas.assign.task_aligned`: costs
(N, T, Q) are all the pairs there are, without padding to the most objects in an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from eyas.boxes import EPS as BOX_EPS
from eyas.boxes import box_area, cxcywh_to_xyxy
from eyas.nn.compilable import Compilable

if TYPE_CHECKING:
    from torch import Tensor


class HungarianMatcher(Compilable):
    """Match every object of an image to one query of its own, at the lowest total cost; each output by itself.

    Cost of a pair: ``cls_gain * focal + l1_gain * L1 + giou_gain * (1 - GIoU)``, always in float32. The focal part is
    what the focal loss would change if the query were to answer for the object's class (spec core D.5).

    Args:
        cls_gain: weight of the class.
        l1_gain: weight of the sum of differences of cx, cy, w, h.
        giou_gain: weight of the generalised IoU.
        alpha: weight of a wanted class in the focal part, 1 - alpha of an unwanted one.
        gamma: how much less a confident score counts in the focal part.
    """

    compiled_methods = ("cost",)

    def __init__(
        self,
        *,
        cls_gain: float = 2.0,
        l1_gain: float = 5.0,
        giou_gain: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        self.gains = (float(cls_gain), float(l1_gain), float(giou_gain))
        self.alpha = float(alpha)
        self.gamma = float(gamma)

    @torch.no_grad()
    def __call__(self, scores: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, image: Tensor) -> Tensor:
        """Return the query (N, T) int64 of each object in each output; -1 where an image has no query left.

        Waits for the device once, whatever N and B are: costs and images travel to the host as one tensor. Without
        objects nothing waits.

        Args:
            scores: class logits (N, B, Q, C).
            boxes: predicted cx cy w h in [0, 1] (N, B, Q, 4).
            labels: classes of the objects (T,) int64.
            targets: cx cy w h of the objects (T, 4) in [0, 1].
            image: image of each object (T,) int64 in [0, B); rows may be in any order.
        """
        n, t = scores.shape[0], labels.shape[0]
        if t == 0:
            return image.new_zeros(n, 0)
        cost = self.cost(scores, boxes, labels, targets, image)
        packed = torch.cat((cost.flatten(), image.to(cost.dtype))).cpu().numpy()  # float32 holds images below 2**24
        # From page-locked memory, the way back waits for nothing.
        query = torch.empty(cost.shape[:2], dtype=torch.int64, pin_memory=cost.is_cuda)
        query.numpy()[:] = solve(packed[:-t].reshape(cost.shape), packed[-t:].astype(np.int64))
        return query.to(image.device, non_blocking=True)

    def cost(self, scores: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, image: Tensor) -> Tensor:
        """Return the cost (N, T, Q) of each object with each query of its image; arguments as for a call."""
        logits = scores.transpose(2, 3)[:, image, labels].float()  # (N, T, Q)
        l1, _, giou = pair_boxes(boxes.float(), targets.float(), image)
        cls_gain, l1_gain, giou_gain = self.gains
        return cls_gain * self.class_cost(logits) + l1_gain * l1 + giou_gain * (1 - giou)

    def class_cost(self, logits: Tensor) -> Tensor:
        """Return the cost of the class (...) from the logits (...) that queries give to the objects' classes."""
        p = logits.sigmoid()
        surprise = -logsigmoid(logits)  # of seeing the class; that of not seeing it is greater by the logit
        wanted = self.alpha * (1 - p) ** self.gamma * surprise
        unwanted = (1 - self.alpha) * p**self.gamma * (surprise + logits)
        return wanted - unwanted


class OverlapMatcher(HungarianMatcher):
    """Match by how sure a query is of the class, times how well its box fits: cost ``-p * IoU ** 4`` (spec detr 4.4).

    For the end of a training: a box that hardly overlaps costs the same wherever it lies, which would teach nothing at
    the beginning.
    """

    POWER: ClassVar[int] = 4
    compiled_methods = HungarianMatcher.compiled_methods

    def cost(self, scores: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, image: Tensor) -> Tensor:
        """Return the cost (N, T, Q), see `HungarianMatcher.cost`."""
        p = scores.transpose(2, 3)[:, image, labels].float().sigmoid()  # (N, T, Q)
        _, iou, _ = pair_boxes(boxes.float(), targets.float(), image)
        return -p * iou**self.POWER


def pair_boxes(boxes: Tensor, targets: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum of absolute differences, IoU and GIoU (N, T, Q) of each object with each box of its image.

    ``boxes`` (N, B, Q, 4) and ``targets`` (T, 4) are cx cy w h. The same formula as `eyas.boxes.elementwise_giou`, one
    coordinate at a time: a third of the time on a CPU, and no (N, T, Q, 4) temporaries.
    """
    corners = cxcywh_to_xyxy(boxes)
    per_box = torch.stack((*boxes.unbind(-1), *corners.unbind(-1), box_area(corners)))  # (9, N, B, Q)
    cx, cy, w, h, x1, y1, x2, y2, area = per_box.index_select(2, image).unbind(0)  # (N, T, Q) each
    tcx, tcy, tw, th = targets[:, :, None].unbind(1)  # (T, 1) each
    target_corners = cxcywh_to_xyxy(targets)
    tx1, ty1, tx2, ty2 = target_corners[:, :, None].unbind(1)
    l1 = (cx - tcx).abs_() + (cy - tcy).abs_() + (w - tw).abs_() + (h - th).abs_()
    inter = (torch.minimum(x2, tx2) - torch.maximum(x1, tx1)).clamp_(min=0)
    inter *= (torch.minimum(y2, ty2) - torch.maximum(y1, ty1)).clamp_(min=0)
    union = area + box_area(target_corners)[:, None] - inter
    hull = (torch.maximum(x2, tx2) - torch.minimum(x1, tx1)).clamp_(min=0)
    hull = (hull * (torch.maximum(y2, ty2) - torch.minimum(y1, ty1)).clamp_(min=0)).clamp_(min=BOX_EPS)
    iou = inter / union.clamp(min=BOX_EPS)
    return l1, iou, iou - (hull - union) / hull


def solve(cost: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return the query (N, T) int64 of each object, -1 for none, from costs (N, T, Q) and images (T,) on the host.

    A pair whose cost is no finite number is taken only where nothing finite is left: one prediction gone to infinity
    neither stops the run here nor wins an object.
    """
    from scipy.optimize import linear_sum_assignment  # 0.2 s that only this family needs

    cost = replace_non_finite(cost)
    query = np.full(cost.shape[:2], -1, dtype=np.int64)
    order = np.argsort(image, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(image[order])) + 1)  # rows of each image that has objects
    for rows in groups:
        for own_cost, own_query in zip(cost[:, rows], query, strict=True):
            row, column = linear_sum_assignment(own_cost)
            own_query[rows[row]] = column
    return query


def replace_non_finite(cost: np.ndarray) -> np.ndarray:
    """Return costs (N, T, Q) where what is not finite costs more than any matching of finite pairs; float64 if any."""
    finite = np.isfinite(cost)
    if finite.all():
        return cost
    known = cost[finite].astype(np.float64)
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    pairs = min(cost.shape[1:])  # at most so many are taken at once
    return np.where(finite, cost.astype(np.float64), high + pairs * (high - low) + 1)
