"""The loss of one anchor-dense branch (spec core D.2).

Legend: ``B`` images, ``A`` anchors, ``T`` objects of the batch, ``C`` classes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from eyas import dist
from eyas.assign import Assignment, TaskAlignedAssigner
from eyas.boxes import boxes_to_distances, cxcywh_to_xyxy, distances_to_boxes
from eyas.losses.areas import areas_of, hush, unjudged
from eyas.losses.criterion import Criterion, one_tensor
from eyas.losses.elementwise import ciou_loss, dfl_expectation, dfl_loss, l1_loss
from eyas.losses.points import anchor_points
from eyas.nn.compilable import compilables
from eyas.nn.constants import constants

ONE_TO_ONE = (7, 1)  # anchors chosen for each object, and kept


class SupervisedAnchors(NamedTuple):
    """What a branch predicts, and what each anchor is taught. Boxes and distances are in cells of the anchor's level.

    Background anchors are replaced by a unit box compared with itself: no value of theirs reaches a sum, and no
    infinite one its gradient.
    """

    scores: Tensor  # (B, A, C) float32 logits; a constant where nobody can judge them, see `eyas.losses.areas`
    outputs: Tensor  # (B, A, 4 reg_max) float32 distances as the head gives them, of all anchors
    boxes: Tensor  # (B, A, 4) float32 corners
    target_boxes: Tensor  # (B, A, 4) float32 corners
    points: Tensor  # (A, 2) cell centres
    stride: Tensor  # (A, 1) pixels per cell
    size: Tensor  # (4,) width, height, width, height of the network input in pixels
    assigned: Assignment  # who answers for which object, and with which weight


class DenseCriterion(Criterion):
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

    ``gains`` are called box, cls and l1 (``reg_max`` 1) or dfl. ``bce`` may be replaced by any callable that maps
    logits and targets (B, A, C) to unreduced losses (B, A, C), and ``assigner`` by one that is called as it is.

    For a loss of its own, override `box_loss`, `class_loss` or `distance_loss`, `branch_losses` (add a term, with its
    gain in ``gains``) or `supervised` (what is taught to which anchors).
    """

    options: ClassVar[Mapping[str, str]] = {"box": "box", "cls": "cls", "l1": "dfl", "dfl": "dfl"}
    compiled_methods = ("supervised", "mean_losses")

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
        self.third = "dfl" if reg_max > 1 else "l1"
        gains = {"box": box_gain, "cls": cls_gain, self.third: dfl_gain}
        super().__init__(nc=nc, gains=gains, class_weights=class_weights)
        self.strides = [float(s) for s in strides]
        self.reg_max = reg_max
        # The small-object rule widens to the second stride: one cell of the middle level.
        self.min_side = self.strides[1] if len(self.strides) > 1 else self.strides[0]
        self.assigner: Any = TaskAlignedAssigner(topk=topk, topk2=topk2, min_side=self.min_side)
        self.bce: Any = nn.BCEWithLogitsLoss(reduction="none")

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
            batch: ``batch_idx`` (T,), ``cls`` (T, 1), ``bboxes`` (T, 4) cx cy w h divided by the input size, and the
                areas of `eyas.types.Batch` that are to be ignored.
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
            anchors = self.supervised(raw, batch)
            norm = mean_weight(anchors.assigned.weight.sum())
            return anchors.assigned, self.weigh(self.mean_losses(anchors, norm))

    def mean_losses(self, anchors: SupervisedAnchors, norm: Tensor) -> dict[str, Tensor]:
        """Return each loss (), by the names in ``gains``, divided by the weight () of all objects."""
        return {name: loss / norm for name, loss in self.branch_losses(anchors).items()}

    def one_to_one(self) -> Self:
        """Return this loss for the branch that keeps one anchor for each object, where it was made for the other.

        Raises:
            ValueError: the assigner is a user's own, and has no ``topk2``.
        """
        if not hasattr(self.assigner, "topk2"):
            raise ValueError(
                f"{type(self).__name__} is the loss of one branch, and this model has two: the second keeps one anchor "
                f"for each object, which {type(self.assigner).__name__} cannot be asked for. Return both from "
                "init_criterion(), as EndToEndCriterion(many, one)."
            )
        twin = copy.copy(self)
        twin.gains, twin.assigner = dict(self.gains), copy.copy(self.assigner)
        twin.assigner.topk, twin.assigner.topk2 = ONE_TO_ONE
        return twin

    def supervised(self, raw: Mapping[str, Any], batch: Mapping[str, Any]) -> SupervisedAnchors:
        """Return predictions in float32, decoded, and what the assigner makes of them."""
        scores = raw["scores"].float().transpose(1, 2)  # (B, A, C)
        outputs = raw["boxes"].float().transpose(1, 2)  # (B, A, 4 reg_max)
        points, stride = anchor_points(raw["feats"], self.strides)
        boxes = self.decode_boxes(outputs, points)
        height, width = (side * self.strides[0] for side in raw["feats"][0].shape[-2:])
        size = constants((width, height, width, height), scores)

        labels, targets, image = self.objects(batch, size, images=len(boxes))
        assigned = self.assign(
            scores.detach(), boxes.detach() * stride, points * stride, labels, targets.to(boxes.device), image
        )
        areas = areas_of(batch, scores.device)
        if areas is not None:
            self.areas_seen += len(areas.boxes)
            least = constants((self.min_side, self.min_side), scores) / size[:2]
            lies_in = unjudged(
                (boxes.detach() * stride / size)[None], (points * stride / size[:2])[None, None], areas, least
            )
            scores = hush(scores, lies_in[0], assigned.foreground)
        foreground = assigned.foreground[..., None]
        unit = distances_to_boxes(torch.ones_like(boxes), points)
        return SupervisedAnchors(
            scores,
            outputs,
            torch.where(foreground, boxes, unit),
            torch.where(foreground, assigned.boxes / stride, unit),
            points,
            stride,
            size,
            assigned,
        )

    def branch_losses(self, anchors: SupervisedAnchors) -> dict[str, Tensor]:
        """Return the sum () of each loss over all anchors, by the names in ``gains``."""
        weight = anchors.assigned.weight
        return {
            "cls": self.weighted_class_loss(anchors.scores, anchors.assigned.scores(self.nc)).sum(),
            "box": (one_tensor("box_loss", self.box_loss(anchors.boxes, anchors.target_boxes)) * weight).sum(),
            self.third: (one_tensor("distance_loss", self.distance_loss(anchors)) * weight).sum(),
        }

    def compilables(self) -> tuple[object, ...]:
        """Return the loss, its assigner and what judges its classes; a user's own may be any callables."""
        return (self, *compilables(self.assigner), *compilables(self.bce))

    def objects(self, batch: Mapping[str, Any], size: Tensor, images: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return classes, corners in pixels and images of the objects, see `unpack_targets`."""
        return unpack_targets(batch, size)

    def assign(
        self, scores: Tensor, boxes: Tensor, points: Tensor, labels: Tensor, targets: Tensor, image: Tensor
    ) -> Assignment:
        """Return who answers for which object; arguments as of `TaskAlignedAssigner`."""
        return self.assigner(scores, boxes, points, labels, targets, image)

    def decode_boxes(self, outputs: Tensor, points: Tensor) -> Tensor:
        """Return corner boxes (B, A, 4) in cells from box outputs (B, A, 4 reg_max) and cell centres (A, 2)."""
        return distances_to_boxes(self.decode_distances(outputs), points)

    def decode_distances(self, outputs: Tensor) -> Tensor:
        """Return distances (B, A, 4) in cells from box outputs (B, A, 4 reg_max)."""
        return dfl_expectation(outputs.unflatten(-1, (4, self.reg_max))) if self.use_dfl else outputs

    def box_loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return 1 - CIoU (B, A) of corner boxes (B, A, 4) in cells."""
        return ciou_loss(pred, target)

    def class_loss(self, logits: Tensor, targets: Tensor, positive: Tensor | None = None) -> Tensor:
        """Return the unreduced class loss (B, A, C): what ``bce`` makes of logits and targets."""
        return self.bce(logits, targets)

    def distance_loss(self, anchors: SupervisedAnchors) -> Tensor:
        """Return the third loss (B, A) of the distances to the sides."""
        target = boxes_to_distances(anchors.target_boxes, anchors.points)  # (B, A, 4) cells
        if self.use_dfl:
            return dfl_loss(anchors.outputs.unflatten(-1, (4, self.reg_max)), target).mean(-1)
        factor = anchors.stride / anchors.size  # (A, 4): cells to shares of the image
        outputs = torch.where(anchors.assigned.foreground[..., None], anchors.outputs, target)
        return l1_loss(outputs * factor, target * factor)


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
