"""``ultralytics.utils.loss``: losses of boxes and classes as modules, over `eyas.losses` (spec core D.2).

Legend: ``B`` images, ``A`` anchors, ``C`` classes, ``F`` anchors that answer for an object.
"""

from __future__ import annotations

from torch import Tensor, nn

from eyas.boxes import elementwise_ciou
from eyas.compat.answers.tal import bbox2dist
from eyas.compat.losses import v8DetectionLoss
from eyas.losses import EndToEndCriterion, dfl_loss, focal_loss, l1_loss, varifocal_loss
from eyas.types import Progress


class FocalLoss(nn.Module):
    """Sigmoid focal loss of logits (n, C): the mean over anchors, summed over classes."""

    def __init__(self, gamma: float = 1.5, alpha: float = 0.25) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, pred: Tensor, label: Tensor, gamma: float | None = None, alpha: float | None = None) -> Tensor:
        """Return the loss () of logits and targets in [0, 1]; ``gamma`` and ``alpha`` here go before the module's."""
        gamma, alpha = self.gamma if gamma is None else gamma, self.alpha if alpha is None else alpha
        return focal_loss(pred, label, alpha=alpha, gamma=gamma).mean(1).sum()


class VarifocalLoss(nn.Module):
    """Varifocal loss of logits (n, C); no gradient flows through its weights, see `eyas.losses.varifocal_loss`."""

    def __init__(self, gamma: float = 2.0, alpha: float = 0.75) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, pred_score: Tensor, gt_score: Tensor, label: Tensor) -> Tensor:
        """Return the loss () of logits, target scores, and where a class is wanted (0 or 1)."""
        loss = varifocal_loss(pred_score, gt_score, label.bool(), alpha=self.alpha, gamma=self.gamma)
        return loss.mean(1).sum()


class DFLoss(nn.Module):
    """Distribution focal loss of logits over ``reg_max`` distances."""

    def __init__(self, reg_max: int = 16) -> None:
        super().__init__()
        self.reg_max = reg_max

    def __call__(self, pred_dist: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the four sides (n, 1) of logits (4 n, reg_max) and distances (n, 4) in cells."""
        return dfl_loss(pred_dist.view(*target.shape, self.reg_max), target).mean(-1, keepdim=True)


class BboxLoss(nn.Module):
    """Box and distance loss of the anchors that answer for objects."""

    def __init__(self, reg_max: int = 16) -> None:
        super().__init__()
        self.dfl_loss = DFLoss(reg_max) if reg_max > 1 else None

    def forward(
        self,
        pred_dist: Tensor,
        pred_bboxes: Tensor,
        anchor_points: Tensor,
        target_bboxes: Tensor,
        target_scores: Tensor,
        target_scores_sum: Tensor,
        fg_mask: Tensor,
        imgsz: Tensor | None = None,
        stride: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return 1 - CIoU and the distance loss, each weighted by the target's score and divided by their sum.

        Args:
            pred_dist: (B, A, 4 reg_max) outputs of the head. pred_bboxes, target_bboxes: (B, A, 4) corners in cells.
            anchor_points: (A, 2) in cells. target_scores: (B, A, C). fg_mask: (B, A).
            imgsz: (2,) height and width, stride: (A, 1), both in pixels; needed where ``reg_max`` is 1.
        """
        weight = target_scores.sum(-1)[fg_mask]  # (F,)
        iou = elementwise_ciou(pred_bboxes[fg_mask], target_bboxes[fg_mask])
        loss_iou = ((1 - iou) * weight).sum() / target_scores_sum
        distance = self.distance_loss(pred_dist, anchor_points, target_bboxes, fg_mask, imgsz, stride)
        return loss_iou, (distance * weight).sum() / target_scores_sum

    def distance_loss(
        self,
        pred_dist: Tensor,
        points: Tensor,
        target_bboxes: Tensor,
        fg_mask: Tensor,
        imgsz: Tensor | None,
        stride: Tensor | None,
    ) -> Tensor:
        """Return the loss (F,) of distances: of their bins, or L1 in shares of the image; 0 without its size."""
        if self.dfl_loss is not None:
            target = bbox2dist(points, target_bboxes, self.dfl_loss.reg_max - 1)[fg_mask]
            return self.dfl_loss(pred_dist[fg_mask].view(-1, self.dfl_loss.reg_max), target)[..., 0]
        if imgsz is None or stride is None:
            return pred_dist[fg_mask].sum(-1) * 0
        share = stride / imgsz.to(pred_dist).flip(-1).repeat(2)  # (A, 4): left and right by width, the others by height
        return l1_loss(pred_dist * share, bbox2dist(points, target_bboxes) * share)[fg_mask]


class E2EDetectLoss(EndToEndCriterion):
    """The plain sum of both branches' losses, one-to-many with ten anchors for an object and one-to-one with one.

    `E2ELoss`, whose weights follow the progress of the run, is what YOLO26 trains with.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(v8DetectionLoss(model, tal_topk=10), v8DetectionLoss(model, tal_topk=1))
        self.o2m = self.o2o = 1.0

    def set_progress(self, progress: Progress) -> None:
        """The weights stay as they are."""
