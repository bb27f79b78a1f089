"""Areas in which finding an object is no mistake: what lies there was not annotated, wholly or for some classes.

Legend: ``M`` areas of the batch, ``S`` sets of classes, ``N`` outputs of one stack, ``B`` images, ``P`` predictions of
an image, ``C`` classes.

A prediction lies in an area if its centre does, or half of itself: the centre is what chooses anchors for an object
(`eyas.assign.task_aligned`), and half is the least that counts as a hit (COCO's rule for crowds).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eyas.boxes import cxcywh_to_xyxy

# A logit in place of those that nobody can judge: a probability of 1e-13 adds nothing to any loss that wants 0, and is
# not yet 0, of which a user's own loss may take the logarithm.
QUIET = -30.0
HALF = 0.5


class Areas(NamedTuple):
    """Where in the images of a batch nothing is known of some classes."""

    boxes: Tensor  # (M, 4) float32 corners in [0, 1]
    image: Tensor  # (M,) int64
    kind: Tensor  # (M,) int64 row of `classes`
    classes: Tensor  # (S, C) bool: classes that were not annotated


def areas_of(batch: Mapping[str, Any], device: torch.device) -> Areas | None:
    """Return the areas of a batch on ``device``; None where data have none, or this batch."""
    if batch.get("ignored") is None or not len(batch["ignored"]):
        return None
    boxes = cxcywh_to_xyxy(batch["ignored"].to(device).float().view(-1, 4))
    image, kind, classes = (batch[f"ignored_{name}"].to(device) for name in ("idx", "kind", "classes"))
    return Areas(boxes, image.view(-1).long(), kind.view(-1).long(), classes)


def unjudged(boxes: Tensor, centres: Tensor, areas: Areas, least: Tensor | None = None) -> Tensor:
    """Return (N, B, P, C) bool: which classes of which predictions nobody can call wrong.

    Args:
        boxes: predicted corners (N, B, P, 4), in shares of the image.
        centres: (N or 1, B or 1, P, 2) x and y, likewise.
        areas: of these images.
        least: (2,) width and height to which smaller areas are widened for centres, as small objects are for anchors.
    """
    n, b, p, _ = boxes.shape
    sets = len(areas.classes)
    mine = boxes[:, areas.image]  # (N, M, P, 4)
    low, high = areas.boxes[:, None, :2], areas.boxes[:, None, 2:]  # (M, 1, 2)
    shared = (torch.minimum(mine[..., 2:], high) - torch.maximum(mine[..., :2], low)).clamp(min=0).prod(-1)
    inside = shared >= HALF * (mine[..., 2:] - mine[..., :2]).clamp(min=0).prod(-1)
    inside &= shared > 0
    if least is not None:
        grow = (least - (high - low)).clamp(min=0) / 2
        low, high = low - grow, high + grow
    at = centres.expand(n, b, p, 2)[:, areas.image]
    inside |= ((at > low) & (at < high)).all(-1)  # (N, M, P)
    row = (areas.image * sets + areas.kind)[None, :, None].expand(n, -1, p)
    covered = inside.new_zeros((n, b * sets, p), dtype=torch.float32).scatter_reduce_(1, row, inside.float(), "amax")
    covered = covered.view(n, b, sets, p).transpose(2, 3)
    return covered @ areas.classes.float() > 0


def hush(scores: Tensor, unjudged: Tensor, taught: Tensor) -> Tensor:
    """Return logits (N, B, P, C) with a constant where nobody can judge them: no loss, and no gradient.

    Args:
        scores: logits.
        unjudged: (N, B, P, C) bool, as `unjudged` returns it.
        taught: (N, B, P) bool, predictions that answer for an object; what they are is known, and what they are not.
    """
    return torch.where(unjudged & ~taught[..., None], scores.new_full((), QUIET), scores)
