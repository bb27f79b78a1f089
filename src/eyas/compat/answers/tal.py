"""``ultralytics.utils.tal``: anchors, distances and the assigner over flat lists, seen as padded ones (spec core D.3).

Legend: ``B`` images, ``A`` anchors, ``N`` most objects in an image, ``C`` classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eyas import assign
from eyas.assign.task_aligned import EPS
from eyas.boxes import boxes_to_distances, distances_to_boxes, xyxy_to_cxcywh
from eyas.losses.points import anchor_points

MARGIN = 0.01  # distances end this far below the last bin


def make_anchors(
    feats: Sequence[Tensor], strides: Sequence[float] | Tensor, grid_cell_offset: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Return the cells' points (A, 2) as x, y in cells, and the stride (A, 1) of each, in the type of ``feats``."""
    values = strides.tolist() if isinstance(strides, Tensor) else strides
    points, sizes = anchor_points(feats, values)
    return (points + (grid_cell_offset - 0.5)).to(feats[0].dtype), sizes.to(feats[0].dtype)


def dist2bbox(distance: Tensor, anchor_points: Tensor, xywh: bool = True, dim: int = -1) -> Tensor:
    """Return boxes from distances to the left, top, right and bottom of points; coordinates lie along ``dim``."""
    boxes = distances_to_boxes(distance.movedim(dim, -1), anchor_points.movedim(dim, -1))
    return (xyxy_to_cxcywh(boxes) if xywh else boxes).movedim(-1, dim)


def bbox2dist(anchor_points: Tensor, bbox: Tensor, reg_max: int | None = None) -> Tensor:
    """Return distances (..., 4) from points to the sides of corner boxes, limited to just below ``reg_max``."""
    distances = boxes_to_distances(bbox, anchor_points)
    return distances if reg_max is None else distances.clamp(0, reg_max - MARGIN)


class TaskAlignedAssigner(nn.Module):
    """Assign anchors to objects that are padded to a rectangle.

    Args:
        topk: anchors chosen for each object. topk2: anchors kept for each; None keeps all chosen ones.
        num_classes: classes.
        alpha, beta: weights of score and overlap.
        stride: pixels per cell of the levels; objects are taken to be at least as large as the second.
    """

    def __init__(
        self,
        topk: int = 13,
        num_classes: int = 80,
        alpha: float = 1.0,
        beta: float = 6.0,
        stride: Sequence[float] = (8, 16, 32),
        eps: float = EPS,
        topk2: int | None = None,
    ) -> None:
        super().__init__()
        if eps != EPS:
            raise ValueError(f"eps={eps} cannot be changed: it is {EPS}.")
        self.topk, self.topk2, self.num_classes, self.alpha, self.beta = topk, topk2, num_classes, alpha, beta
        self.stride = list(stride)

    @torch.no_grad()
    def forward(
        self,
        pd_scores: Tensor,
        pd_bboxes: Tensor,
        anc_points: Tensor,
        gt_labels: Tensor,
        gt_bboxes: Tensor,
        mask_gt: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Assign anchors.

        Args:
            pd_scores: probabilities (B, A, C). pd_bboxes: corners (B, A, 4) in pixels.
            anc_points: (A, 2) x, y in pixels.
            gt_labels: (B, N, 1) classes. gt_bboxes: (B, N, 4) corners in pixels. mask_gt: (B, N, 1), 0 for padding.

        Returns:
            Labels (B, A), boxes (B, A, 4), scores (B, A, C), which anchors answer for an object (B, A), and for which
            of its image (B, A). Background has class 0, no box, no score and object 0.
        """
        image, slot = mask_gt[..., 0].bool().nonzero(as_tuple=True)
        assigner = assign.TaskAlignedAssigner(
            topk=self.topk,
            topk2=self.topk2,
            alpha=self.alpha,
            beta=self.beta,
            min_side=self.stride[min(1, len(self.stride) - 1)],
        )
        assigned = assigner(
            torch.logit(pd_scores, eps=1e-7),
            pd_bboxes,
            anc_points,
            gt_labels[image, slot, 0].long(),
            gt_bboxes[image, slot],
            image,
        )
        owned = assigned.foreground
        objects = torch.cat((slot, slot.new_zeros(1)))[assigned.owner]  # the owner -1 of background finds the 0
        return assigned.labels, assigned.boxes, assigned.scores(self.num_classes), owned, objects
