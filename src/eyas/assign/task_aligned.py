"""Task-aligned assignment of anchors to objects (TOOD, Feng et al., 2021; spec core D.3), in six named steps.

Legend: ``B`` images, ``A`` anchors, ``T`` objects of the whole batch, ``C`` classes, ``k`` anchors chosen per object.

Objects stay in one flat list of T rows with the image each belongs to. Padding them to (B, most objects in an image)
would need that maximum from the device, and would compute mostly padding: T is known from the shape, and T x A is the
work there really is. Every step has shapes known beforehand, so nothing waits for the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eyas.boxes import EPS as BOX_EPS
from eyas.nn.compilable import Compilable

EPS = 1e-9


class Assignment(NamedTuple):
    """What every anchor shall learn. Background anchors have ``owner`` -1, zeros in ``boxes`` and in ``weight``."""

    boxes: Tensor  # (B, A, 4) corners in pixels
    labels: Tensor  # (B, A) int64 class
    weight: Tensor  # (B, A) soft target of that class, in [0, 1]
    owner: Tensor  # (B, A) int64 row of the object, -1 for background

    @property
    def foreground(self) -> Tensor:
        """Mask (B, A) of anchors that answer for an object."""
        return self.owner >= 0

    def scores(self, nc: int) -> Tensor:
        """Return soft class targets (B, A, nc)."""
        target = self.weight.new_zeros((*self.weight.shape, nc))
        # A maximum with zero, not a plain scatter: CUDA's deterministic scatter asks the device for its largest index.
        return target.scatter_reduce_(2, self.labels[..., None], self.weight[..., None], "amax")


class TaskAlignedAssigner(Compilable):
    """Assign to each object the anchors that both classify and locate it best.

    Args:
        topk: anchors chosen for each object.
        topk2: anchors kept for each object after conflicts are resolved; None keeps all, 1 makes it one-to-one.
        alpha: weight of the class score in the metric ``score**alpha * overlap**beta``.
        beta: weight of the overlap.
        min_side: shorter sides of objects are taken as this long (pixels) in the test for candidates, so that the
            smallest objects have candidates at all.
    """

    compiled_methods = ()  # of itself: it is compiled with the loss that calls it

    def __init__(
        self, *, topk: int = 10, topk2: int | None = None, alpha: float = 0.5, beta: float = 6.0, min_side: float = 16.0
    ) -> None:
        self.topk = topk
        self.topk2 = topk if topk2 is None else topk2
        self.alpha = alpha
        self.beta = beta
        self.min_side = min_side

    @torch.no_grad()
    def __call__(
        self, scores: Tensor, boxes: Tensor, points: Tensor, labels: Tensor, targets: Tensor, image: Tensor
    ) -> Assignment:
        """Assign anchors.

        Args:
            scores: class logits (B, A, C).
            boxes: predicted corners (B, A, 4) in pixels.
            points: anchor centres (A, 2) as x, y in pixels.
            labels: classes of the objects (T,) int64.
            targets: corners of the objects (T, 4) in pixels; a row whose coordinates add up to 0 or less is no object.
            image: image of each object (T,) int64 in [0, B).
        """
        b, a, _ = scores.shape
        if targets.shape[0] == 0:
            return _all_background(boxes)
        candidate = candidates(points, targets, self.min_side)
        overlap = candidate_overlaps(boxes, targets, image, candidate)
        metric = _power(class_scores(scores, labels, image), self.alpha) * _power(overlap, self.beta)
        anchor, chosen = choose(metric, candidate, min(self.topk, a))
        owner = resolve_conflicts(anchor, chosen, overlap, image, b)
        if self.topk2 != self.topk:
            owner = keep_best(owner, metric, image, self.topk2)
        return soft_targets(owner, metric, overlap, labels, targets)


def candidates(points: Tensor, targets: Tensor, min_side: float) -> Tensor:
    """Step 1. Return (T, A): the anchor's centre lies strictly inside the object, widened to ``min_side`` if small."""
    low, high = targets[:, :2], targets[:, 2:4]
    grow = (min_side - (high - low)).clamp(min=0) / 2
    low, high = low - grow, high + grow
    x, y = points[:, 0], points[:, 1]
    inside = (x - low[:, :1] > EPS) & (high[:, :1] - x > EPS)
    inside &= (y - low[:, 1:] > EPS) & (high[:, 1:] - y > EPS)
    return inside & (targets.sum(1, keepdim=True) > 0)


def candidate_overlaps(boxes: Tensor, targets: Tensor, image: Tensor, candidate: Tensor) -> Tensor:
    """Step 2. Return (T, A): CIoU, at least 0, of each object with each prediction of its image; 0 off candidates.

    The same formula as `eyas.boxes.elementwise_ciou`, arranged so that what depends on the prediction alone is
    computed (B, A) times and not (T, A) times, and so that few (T, A) temporaries exist.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)  # (B, A) each
    w, h = x2 - x1, y2 - y1 + BOX_EPS
    per_prediction = torch.stack((x1, y1, x2, y2, w * h, torch.atan(w / h)), 0)  # (6, B, A)
    px1, py1, px2, py2, area, angle = per_prediction[:, image].unbind(0)  # (T, A) each
    tx1, ty1, tx2, ty2 = targets[:, :, None].unbind(1)  # (T, 1) each
    tw, th = tx2 - tx1, ty2 - ty1 + BOX_EPS
    inter = (torch.minimum(px2, tx2) - torch.maximum(px1, tx1)).clamp_(min=0)
    inter *= (torch.minimum(py2, ty2) - torch.maximum(py1, ty1)).clamp_(min=0)
    iou = inter / (area + tw * th - inter + BOX_EPS)
    diagonal = (torch.maximum(px2, tx2) - torch.minimum(px1, tx1)).square_()
    diagonal += (torch.maximum(py2, ty2) - torch.minimum(py1, ty1)).square_()
    distance = (px1 + px2 - (tx1 + tx2)).square_() + (py1 + py2 - (ty1 + ty2)).square_()
    aspect = (torch.atan(tw / th) - angle).square_() * (4 / torch.pi**2)
    aspect_term = aspect * aspect / (aspect - iou + (1 + BOX_EPS))
    ciou = iou - distance / (diagonal + BOX_EPS) / 4 - aspect_term
    # Filled and not multiplied: a prediction gone to infinity is no number here, and must not reach other objects.
    return ciou.clamp_(min=0).masked_fill_(~candidate, 0)


def class_scores(scores: Tensor, labels: Tensor, image: Tensor) -> Tensor:
    """Return (T, A): the probability that each prediction of its image gives to the object's class."""
    return scores.transpose(1, 2)[image, labels].sigmoid()


def choose(metric: Tensor, candidate: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Step 3. Return the ``k`` anchors (T, k) of each object with the best metric, and which are candidates (T, k)."""
    anchor = metric.topk(k, dim=1, sorted=False).indices
    return anchor, candidate.gather(1, anchor)


def resolve_conflicts(anchor: Tensor, chosen: Tensor, overlap: Tensor, image: Tensor, b: int) -> Tensor:
    """Step 4. Return the owner (B, A) of each anchor, -1 for none.

    An anchor chosen by several objects goes to the object of its image that it overlaps most, even if that one did
    not choose it; among equal overlaps to the first.
    """
    t, a = overlap.shape
    row = torch.arange(t, device=overlap.device)[:, None]
    cell = (image[:, None] * a + anchor).flatten()
    # Two maxima tell one claim from several. Counting with scatter_add_ would wait: its deterministic form on CUDA asks
    # the device for the largest index.
    nobody = torch.full((b * a,), -1, dtype=torch.int64, device=overlap.device)
    owner = nobody.scatter_reduce(0, cell, torch.where(chosen, row, -1).flatten(), "amax").view(b, a)
    first = (t - 1) - nobody.scatter_reduce(0, cell, torch.where(chosen, t - 1 - row, -1).flatten(), "amax").view(b, a)
    by_image = image[:, None].expand(t, a)
    most = overlap.new_zeros(b, a).scatter_reduce_(0, by_image, overlap, "amax")
    is_most = overlap == most[image]
    # The last object where none is the closest: overlaps that are no numbers equal nothing.
    closest = torch.full_like(owner, t - 1).scatter_reduce_(0, by_image, torch.where(is_most, row, t), "amin")
    return torch.where(first < owner, closest, owner)


def keep_best(owner: Tensor, metric: Tensor, image: Tensor, k: int) -> Tensor:
    """Step 5. Return the owners (B, A) with only the ``k`` anchors of best metric kept for each object."""
    t, a = metric.shape
    owned = owner[image] == torch.arange(t, device=owner.device)[:, None]
    anchor = torch.where(owned, metric, -1.0).topk(min(k, a), dim=1, sorted=False).indices
    cell = image[:, None] * a + anchor
    claimant = torch.where(owned.gather(1, anchor), torch.arange(t, device=owner.device)[:, None], -1)
    kept = torch.full_like(owner, -1).view(-1)
    return kept.scatter_reduce_(0, cell.flatten(), claimant.flatten(), "amax").view_as(owner)


def soft_targets(owner: Tensor, metric: Tensor, overlap: Tensor, labels: Tensor, targets: Tensor) -> Assignment:
    """Step 6. Return the assignment; an anchor's weight is its metric, scaled so that the object's best anchor gets
    the object's best overlap."""
    t = metric.shape[0]
    foreground = owner >= 0
    row = owner.clamp(min=0)
    own_metric = metric.gather(0, row) * foreground
    own_overlap = overlap.gather(0, row) * foreground
    best_metric = metric.new_zeros(t).scatter_reduce_(0, row.flatten(), own_metric.flatten(), "amax")
    best_overlap = metric.new_zeros(t).scatter_reduce_(0, row.flatten(), own_overlap.flatten(), "amax")
    scale = best_overlap / (best_metric + EPS)
    return Assignment(
        boxes=targets[row] * foreground[..., None],
        labels=labels[row] * foreground,
        weight=own_metric * scale[row],
        owner=owner,
    )


def _power(x: Tensor, exponent: float) -> Tensor:
    """Return ``x ** exponent``, by square roots and products for the usual exponents: several times faster."""
    if exponent == 0.5:
        return x.sqrt()
    if exponent == 6.0:
        cube = x * x * x
        return cube * cube
    return x.pow(exponent)


def _all_background(boxes: Tensor) -> Assignment:
    b, a, _ = boxes.shape
    owner = torch.full((b, a), -1, dtype=torch.int64, device=boxes.device)
    zeros = boxes.new_zeros(b, a)
    return Assignment(torch.zeros_like(boxes), torch.zeros_like(owner), zeros, owner)
