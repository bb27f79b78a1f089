"""The loss of a detector that predicts a set (spec core D.5, spec detr 1.7).

Legend: ``N`` outputs of one stack, ``L`` decoder layers, ``B`` images, ``Q`` queries, ``C`` classes, ``T`` objects of
the batch, ``P`` pairs of a query and an object.

What is supervised is a flat list: encoder, decoder layers and the denoising part of every decoder layer. Outputs with
equally many queries are stacked, so that one matching and one pass of each loss serve all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from eyas import dist
from eyas.assign import HungarianMatcher
from eyas.boxes import cxcywh_to_xyxy, elementwise_giou, elementwise_iou
from eyas.losses.areas import Areas, areas_of, hush, unjudged
from eyas.losses.criterion import Criterion, one_tensor
from eyas.losses.elementwise import matchability_loss, varifocal_loss
from eyas.nn.compilable import compilables
from eyas.types import DenoisingMeta, SetPrediction

# What `all_terms` calls the losses, and where it puts each kind of output: the names of spec core D.5.
TERM_NAMES = {"giou": "loss_giou", "cls": "loss_class", "l1": "loss_bbox"}
TERM_SUFFIXES = {"main": "", "aux": "_aux", "enc": "_aux", "pre": "_aux", "dn": "_dn", "aux_dn": "_aux_dn"}


class Objects(NamedTuple):
    """What is to be found, on the device of the predictions."""

    labels: Tensor  # (T,) int64 class
    boxes: Tensor  # (T, 4) float32 cx cy w h in [0, 1]
    image: Tensor  # (T,) int64


class Edges(NamedTuple):
    """Distributions of the edges of boxes, of the decoder layers in a stack, its last outputs (`eyas.losses.fine`)."""

    logits: Tensor  # (L, B, Q, 4 n) float32
    reference: Tensor  # (B, Q, 4) cx cy w h
    confidence: Tensor  # (B, Q) of the teacher in its best class, in [0, 1]
    share_found: Tensor  # () weight of what a query with an object is taught by the last layer, and ...
    share_free: Tensor  # () ... of what one without is taught; known once all processes have counted


class Supervised(NamedTuple):
    """A stack of outputs that are taught alike, and which of their queries must find which objects."""

    kinds: tuple[str, ...]  # N times: "main" (the last layer), "aux", "enc", "pre", "dn" (the last layer) or "aux_dn"
    scores: Tensor  # (N, B, Q, C) float32 logits; a constant where nobody can judge them, see `eyas.losses.areas`
    boxes: Tensor  # (N, B, Q, 4) float32 cx cy w h in [0, 1]
    image: Tensor  # (P,) int64
    query: Tensor  # (N, P) int64, -1 where an object found no query
    target: Tensor  # (P,) int64 row of the objects
    part: Literal["all", "classes", "boxes"] = "all"  # the terms that count: the class loss, all others, or both
    edges: Edges | None = None


class SetCriterion(Criterion):
    """Varifocal, L1 and GIoU loss of matched and denoising queries, in float32, waiting for the device once.

    The one wait is the matcher's, for all outputs of the whole batch. In several processes, each returns its share: the
    sum of their losses is the loss that one process would have over all their images, and the mean of their items is
    that process's item.

    Without objects box losses are 0 and keep their graph, so that every parameter has a gradient. The class loss goes
    on as varifocal loss; the incumbent changes to a focal loss of another scale there, which is not copied. Nor does
    its gradient through the weight of unwanted classes exist here: weights are constants, as in the paper (Zhang et
    al., 2021), for every alpha and gamma.

    Args:
        nc: classes.
        cls_gain: weight of the class loss.
        l1_gain: weight of the sum of differences of cx, cy, w, h.
        giou_gain: weight of 1 - GIoU.
        alpha: weight of unwanted classes in the varifocal loss.
        gamma: how much less unwanted classes count that score low already.
        matchability: gamma of the matchability-aware loss, which takes the place of the varifocal one; None for none.
        class_weights: factors of the classes (C,), applied to wanted and unwanted terms of all queries alike.
        matcher: decides which query answers for which object; called as a `HungarianMatcher`, which is the default.

    For a family of its own, override `box_loss`, `class_loss` or `distance_loss`, `layer_losses` (add a loss, with its
    gain in ``gains``) or `supervised` (what is taught, and to which queries).
    """

    options: ClassVar[Mapping[str, str]] = {"giou": "box", "cls": "cls", "l1": "dfl"}
    compiled_methods = ("layer_losses",)

    def __init__(
        self,
        *,
        nc: int,
        cls_gain: float = 1.0,
        l1_gain: float = 5.0,
        giou_gain: float = 2.0,
        alpha: float = 0.75,
        gamma: float = 2.0,
        matchability: float | None = None,
        class_weights: Tensor | Sequence[float] | None = None,
        matcher: HungarianMatcher | None = None,
    ) -> None:
        gains = {"giou": giou_gain, "cls": cls_gain, "l1": l1_gain}
        super().__init__(nc=nc, gains=gains, class_weights=class_weights)
        self.alpha = float(alpha)
        self.gamma = float(gamma)
        self.matchability = matchability
        self.matcher = HungarianMatcher() if matcher is None else matcher

    def compilables(self) -> tuple[object, ...]:
        """Return the criterion and its matcher; a user's own may be any callable."""
        return (self, *compilables(self.matcher))

    def __call__(self, preds: Any, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses (3,), each summed over all outputs, and the detached items of the last decoder layer.

        Args:
            preds: a `SetPrediction`, or (detections, `SetPrediction`) as evaluation gives it.
            batch: ``batch_idx`` (T,), ``cls`` (T, 1), ``bboxes`` (T, 4) cx cy w h divided by the input size, and the
                areas of `eyas.types.Batch` that are to be ignored.
        """
        kinds, losses, ranks = self._losses(preds, batch)
        shown = self.shown(kinds, losses.detach()) * ranks
        return losses.sum(0), dict(zip(self.loss_names, shown, strict=True))

    def shown(self, kinds: Sequence[str], losses: Tensor) -> Tensor:
        """Return what is logged (terms,) of the losses (outputs, terms): those of the last decoder layer."""
        return sum_of_kind(kinds, losses, "main")

    def all_terms(self, preds: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return every term with its gain, which add up to the loss: ``loss_class``, ``loss_bbox``, ``loss_giou`` and
        ``loss_<name>`` of a term that a subclass adds.

        They stand for the last layer, with ``_aux`` for the encoder and the other layers, ``_dn`` for the denoising
        queries of the last layer and ``_aux_dn`` for those of the others. Gradients flow through them. In several
        processes they are this one's share, and every process must ask for them.
        """
        kinds, losses, _ = self._losses(preds, batch)
        terms: dict[str, Tensor] = {}
        for suffix in dict.fromkeys(TERM_SUFFIXES.values()):
            total = sum_of_kind([TERM_SUFFIXES[kind] for kind in kinds], losses, suffix)
            names = [TERM_NAMES.get(name, f"loss_{name}") + suffix for name in self.gains]
            terms |= dict(zip(names, total, strict=True))
        return terms

    def _losses(self, preds: Any, batch: Mapping[str, Any]) -> tuple[list[str], Tensor, int]:
        """Return kinds, weighted losses of all outputs (outputs, 3), and over how many processes they are shared."""
        pred = self.parse_output(preds)
        with torch.autocast(device_type=pred.dec_scores.device.type, enabled=False):
            objects = unpack_objects(batch, pred.dec_scores.device)
            stacks = self.supervised(pred, objects)
            areas = areas_of(batch, pred.dec_scores.device)
            if areas is not None:
                self.areas_seen += len(areas.boxes)
                stacks = [quiet_in(areas, stack) for stack in stacks]
            stacks, totals, ranks = self.shared(stacks)
            losses = [
                self.weigh(counted(stack, self.layer_losses(stack, objects))) / total
                for stack, total in zip(stacks, totals, strict=True)
            ]
            return [kind for stack in stacks for kind in stack.kinds], torch.cat(losses), ranks

    @staticmethod
    def parse_output(preds: Any) -> SetPrediction:
        """Return the prediction from what the model gave: itself while training, (detections, it) otherwise."""
        return preds if isinstance(preds, SetPrediction) else preds[1]

    def supervised(self, pred: SetPrediction, objects: Objects) -> list[Supervised]:
        """Return the stacks of outputs: encoder and decoder layers with their matching, then the denoising part.

        Every process makes the same stacks, because they exchange the number of pairs of each: without denoising the
        second one has no queries.
        """
        meta = no_denoising(pred) if pred.dn_meta is None else pred.dn_meta
        first, layers = meta.split[0], pred.dec_scores.shape[0]
        scores = torch.cat((pred.enc_scores[None], pred.dec_scores[:, :, first:])).float()
        boxes = torch.cat((pred.enc_bboxes[None], pred.dec_bboxes[:, :, first:])).float()
        query = self.match(scores, boxes, objects)
        rows = torch.arange(len(objects.labels), device=query.device)
        return [
            Supervised(("enc", *["aux"] * (layers - 1), "main"), scores, boxes, objects.image, query, rows),
            Supervised(
                (*["aux_dn"] * (layers - 1), "dn"),
                pred.dec_scores[:, :, :first].float(),
                pred.dec_bboxes[:, :, :first].float(),
                meta.image,
                meta.query.expand(layers, -1),
                meta.target,
            ),
        ]

    def match(self, scores: Tensor, boxes: Tensor, objects: Objects) -> Tensor:
        """Return the query (N, T) int64 of each object in each of N outputs, -1 for none, from logits and boxes."""
        return self.matcher(scores.detach(), boxes.detach(), *objects)

    def shared(self, stacks: list[Supervised]) -> tuple[list[Supervised], Tensor, int]:
        """Return the stacks, the divisors of their losses (stacks,), and over how many processes these are shared."""
        totals, ranks = total_over_ranks(torch.stack([self.count_pairs(stack) for stack in stacks]))
        return stacks, totals, ranks

    def count_pairs(self, stack: Supervised) -> Tensor:
        """Return the number of pairs (), float32, that each output of the stack has: the divisor of its losses."""
        return (stack.query[0] >= 0).sum().float()

    def layer_losses(self, stack: Supervised, objects: Objects) -> dict[str, Tensor]:
        """Return the sum of each loss for each output (N,), by the names in ``gains``."""
        pred, target, found = paired_boxes(stack, objects)
        corners, target_corners = cxcywh_to_xyxy(pred), cxcywh_to_xyxy(target)
        overlap = elementwise_iou(corners.detach(), target_corners)
        targets, positive = class_targets(stack, objects, torch.where(found, overlap, -1.0))
        return {
            # The mask matters for objects without area, which have no GIoU of 1 even with themselves.
            "giou": (one_tensor("box_loss", self.box_loss(corners, target_corners)) * found).sum(1),
            "cls": self.weighted_class_loss(stack.scores, targets, positive).sum((1, 2, 3)),
            "l1": self.distance_loss(pred, target).sum((1, 2)),
        }

    def box_loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return 1 - GIoU (N, P) of corner boxes (N, P, 4) in shares of the image."""
        return 1 - elementwise_giou(pred, target)

    def distance_loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the unreduced third loss (N, P, 4) of cx, cy, w, h in shares of the image."""
        return (pred - target).abs()

    def class_loss(self, logits: Tensor, targets: Tensor, positive: Tensor | None = None) -> Tensor:
        """Return the unreduced class loss (N, B, Q, C).

        ``targets`` are IoU with the object in the column of its class, and ``positive`` says where these columns are:
        an object may have IoU 0 with its query.
        """
        if self.matchability is not None:
            return matchability_loss(logits, targets, positive, gamma=self.matchability)
        return varifocal_loss(logits, targets, positive, alpha=self.alpha, gamma=self.gamma)


def counted(stack: Supervised, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the losses (N,) of a stack by name, with 0 for those that another stack of the same outputs teaches."""
    if stack.part == "all":
        return losses
    return {
        name: loss if (name == "cls") == (stack.part == "classes") else torch.zeros_like(loss)
        for name, loss in losses.items()
    }


def sum_of_kind(kinds: Sequence[str], losses: Tensor, kind: str) -> Tensor:
    """Return the sum (terms,) of the rows of ``losses`` (outputs, terms) that are of one kind."""
    rows = [loss for own, loss in zip(kinds, losses, strict=True) if own == kind]
    return torch.stack(rows).sum(0) if rows else losses.new_zeros(losses.shape[1])


def quiet_in(areas: Areas, stack: Supervised) -> Supervised:
    """Return the stack with what nobody can judge in some areas left out of every loss."""
    lies_in = unjudged(cxcywh_to_xyxy(stack.boxes.detach()), stack.boxes.detach()[..., :2], areas)
    return stack._replace(scores=hush(stack.scores, lies_in, answering(stack)))


def answering(stack: Supervised) -> Tensor:
    """Return (N, B, Q) bool: the queries that answer for an object."""
    n, b, q, _ = stack.scores.shape
    found = stack.query >= 0
    cell = stack.image * q + stack.query.clamp(min=0)
    return (
        found.new_zeros((n, b * q), dtype=torch.int64).scatter_reduce_(1, cell, found.long(), "amax").view(n, b, q) > 0
    )


def unpack_objects(batch: Mapping[str, Any], device: torch.device) -> Objects:
    """Return the objects of the batch on ``device``."""
    return Objects(
        batch["cls"].to(device).view(-1).long(),
        batch["bboxes"].to(device).float().view(-1, 4),
        batch["batch_idx"].to(device).view(-1).long(),
    )


def no_denoising(pred: SetPrediction) -> DenoisingMeta:
    """Return the meta of a prediction without denoising queries."""
    nothing = torch.zeros(0, dtype=torch.int64, device=pred.dec_scores.device)
    return DenoisingMeta(nothing, nothing, nothing, 0, (0, pred.dec_scores.shape[2]))


def paired_boxes(stack: Supervised, objects: Objects) -> tuple[Tensor, Tensor, Tensor]:
    """Return predicted and wanted boxes (N, P, 4) of the pairs, and which pairs there are (N, P).

    Where an object found no query its own box stands for the prediction: no loss, and no gradient.
    """
    found = stack.query >= 0
    layer = torch.arange(len(stack.kinds), device=found.device)[:, None]
    pred = stack.boxes[layer, stack.image, stack.query.clamp(min=0)]
    target = objects.boxes[stack.target].expand_as(pred)
    return torch.where(found[..., None], pred, target), target, found


def class_targets(stack: Supervised, objects: Objects, overlap: Tensor) -> tuple[Tensor, Tensor]:
    """Return the targets (N, B, Q, C), zeros but for the overlap in the columns of the objects' classes, and a mask of
    these columns. ``overlap`` (N, P) is -1 where an object found no query."""
    n, b, q, c = stack.scores.shape
    layer = torch.arange(n, device=overlap.device)[:, None]
    cell = ((layer * b + stack.image) * q + stack.query.clamp(min=0)) * c + objects.labels[stack.target]
    # A maximum and not a plain scatter: CUDA's deterministic scatter asks the device for its largest index.
    wanted = overlap.new_full((n * b * q * c,), -1.0)
    wanted = wanted.scatter_reduce_(0, cell.flatten(), overlap.flatten(), "amax").view_as(stack.scores)
    return wanted.clamp(min=0), wanted >= 0


def total_over_ranks(count: Tensor) -> tuple[Tensor, int]:
    """Return counts summed over the processes, each at least 1, and how many processes were asked."""
    mean = dist.mean_over_ranks(count)
    ranks = 1 if mean is count else dist.world_size()
    return (mean * ranks).clamp(min=1), ranks
