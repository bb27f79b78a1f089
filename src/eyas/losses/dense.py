"""The loss of one anchor-dense branch (spec core D.2).

Legend: ``B`` images, ``A`` anchors, ``T`` objects of the batch, ``C`` classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eyas import dist
from eyas.assign import Assignment, TaskAlignedAssigner
from eyas.boxes import boxes_to_distances, cxcywh_to_xyxy, distances_to_boxes
from eyas.losses.class_weighting import as_class_weights, weight_classes
from eyas.losses.elementwise import ciou_loss, dfl_expectation, dfl_loss, l1_loss
from eyas.losses.points import anchor_points


class DenseCriterion:
    """Classification, box and distance loss of one branch, always in float32 and without waiting for the device.

    In several processes, each returns its share: the sum of their losses is the loss that one process would have over
    all their images, and the mean of their items is that process's item.

    Args:
        nc: classes.
        strides: pixels per cell of each level.
        reg_max: bins of a distance; 1 means that distances are predicted directly.
        box_gain: weight of the box loss (1 - CIoU).
        cls_gain: weight of the class loss (binary cross-entropy).
        dfl_gain: weight of the third loss: L1 of distances for ``reg_max`` 1, else distribution focal loss.
        topk: anchors chosen for each object.
        topk2: anchors kept for each object; None keeps all chosen ones.
        class_weights: factors of the classes (C,) or (1, 1, C), applied to positive and negative terms alike.

    ``bce`` may be replaced by any callable that maps logits and targets (B, A, C) to unreduced losses (B, A, C).
    """

    def __init__(
        self,
        *,
        nc: int,
        strides: Sequence[float],
        reg_max: int = 1,
        box_gain: float = 7.5,
        cls_gain: float = 0.5,
        dfl_gain: float = 1.5,
        topk: int = 10,
        topk2: int | None = None,
        class_weights: Tensor | Sequence[float] | None = None,
    ) -> None:
        self.nc = nc
        self.strides = [float(s) for s in strides]
        self.reg_max = reg_max
        self.gains = (float(box_gain), float(cls_gain), float(dfl_gain))
        # The small-object rule widens to the second stride: one cell of the middle level.
        min_side = self.strides[1] if len(self.strides) > 1 else self.strides[0]
        self.assigner = TaskAlignedAssigner(topk=topk, topk2=topk2, min_side=min_side)
        self.bce: Any = nn.BCEWithLogitsLoss(reduction="none")
        self.class_weights = None if class_weights is None else as_class_weights(class_weights, nc)
        self.loss_names = ("box_loss", "cls_loss", "dfl_loss" if reg_max > 1 else "l1_loss")

    @property
    def no(self) -> int:
        """Outputs for each anchor."""
        return self.nc + 4 * self.reg_max

    @property
    def use_dfl(self) -> bool:
        """Whether distances are predicted as distributions."""
        return self.reg_max > 1

    def __call__(self, preds: Any, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector (3,) times B, and the detached items before that factor.

        In several processes B is the mean over them, because the last batch of an epoch may be shared unevenly.

        Args:
            preds: raw predictions {"boxes" (B, 4 reg_max, A), "scores" (B, C, A), "feats"} or (decoded, raw).
            batch: ``batch_idx`` (T,), ``cls`` (T, 1), ``bboxes`` (T, 4) cx cy w h divided by the input size.
        """
        raw = self.parse_output(preds)
        _, losses = self.get_assigned_targets_and_loss(raw, batch)
        items = dict(zip(self.loss_names, losses.detach(), strict=True))
        images = dist.mean_over_ranks(losses.new_full((), raw["boxes"].shape[0]))
        return losses * images, items

    loss = __call__

    @staticmethod
    def parse_output(preds: Any) -> dict[str, Any]:
        """Return raw predictions from what the model gave: themselves while training, (decoded, raw) otherwise."""
        return preds[1] if isinstance(preds, tuple) else preds

    def get_assigned_targets_and_loss(
        self, raw: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> tuple[Assignment, Tensor]:
        """Return the assignment and the weighted losses (3,), per object weight and not yet times B."""
        with torch.autocast(device_type=raw["boxes"].device.type, enabled=False):
            return self._losses(raw, batch)

    def _losses(self, raw: Mapping[str, Any], batch: Mapping[str, Any]) -> tuple[Assignment, Tensor]:
        scores = raw["scores"].float().transpose(1, 2)  # (B, A, C)
        outputs = raw["boxes"].float().transpose(1, 2)  # (B, A, 4 reg_max)
        points, stride = anchor_points(raw["feats"], self.strides)
        distances = self.decode_distances(outputs)  # (B, A, 4) cells
        boxes = distances_to_boxes(distances, points)  # (B, A, 4) cells
        height, width = (side * self.strides[0] for side in raw["feats"][0].shape[-2:])
        size = _constant((width, height, width, height), scores)

        labels, targets, image = unpack_targets(batch, size)
        assigned = self.assigner(
            scores.detach(), boxes.detach() * stride, points * stride, labels, targets.to(boxes.device), image
        )
        norm = mean_weight(assigned.weight.sum())
        cls_loss = self.class_loss(scores, assigned.scores(self.nc)) / norm

        # Background anchors are replaced by a unit box compared with itself: no value of theirs reaches the sum, and
        # no infinite one its gradient.
        foreground = assigned.foreground[..., None]
        unit = distances_to_boxes(torch.ones_like(distances), points)
        target_boxes = torch.where(foreground, assigned.boxes / stride, unit)
        box_loss = (ciou_loss(torch.where(foreground, boxes, unit), target_boxes) * assigned.weight).sum() / norm
        target_distances = boxes_to_distances(target_boxes, points)
        third = self.distance_loss(outputs, target_distances, stride, size, foreground)
        third_loss = (third * assigned.weight).sum() / norm
        box, cls, dfl = self.gains
        return assigned, torch.stack((box_loss * box, cls_loss * cls, third_loss * dfl))

    def decode_distances(self, outputs: Tensor) -> Tensor:
        """Return distances (B, A, 4) in cells from box outputs (B, A, 4 reg_max)."""
        return dfl_expectation(outputs.unflatten(-1, (4, self.reg_max))) if self.use_dfl else outputs

    def class_loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the class loss over logits and targets (B, A, C)."""
        loss = self.bce(scores, targets)
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(loss.device, non_blocking=True)  # moves once
        return weight_classes(loss, self.class_weights).sum()

    def distance_loss(
        self, outputs: Tensor, target: Tensor, stride: Tensor, size: Tensor, foreground: Tensor
    ) -> Tensor:
        """Return the third loss (B, A) of box outputs (B, A, 4 reg_max) against distances (B, A, 4) in cells."""
        if self.use_dfl:
            return dfl_loss(outputs.unflatten(-1, (4, self.reg_max)), target).mean(-1)
        factor = stride / size  # (A, 4): cells to shares of the image
        return l1_loss(torch.where(foreground, outputs, target) * factor, target * factor)


def unpack_targets(batch: Mapping[str, Any], size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return classes (T,) int64, corners (T, 4) in pixels and images (T,) int64 on the device of ``size``.

    ``size`` (4,) is width, height, width, height of the network input in pixels.
    """
    device = size.device
    labels = batch["cls"].to(device).view(-1).long()
    targets = cxcywh_to_xyxy(batch["bboxes"].to(device).float().view(-1, 4) * size)
    return labels, targets, batch["batch_idx"].to(device).view(-1).long()


def mean_weight(weight: Tensor) -> Tensor:
    """Return the divisor of the losses: the weight of all objects, at least 1, divided by the number of processes."""
    mean = dist.mean_over_ranks(weight)
    return mean.clamp(min=1 if mean is weight else 1 / dist.world_size())


def _constant(values: Sequence[float], like: Tensor) -> Tensor:
    """Return a float32 vector on the device of ``like``, filled there: copying from the host would wait."""
    return torch.cat([torch.full((1,), float(v), device=like.device) for v in values])
