"""The loss of a detector whose boxes have distributions for edges (Peng et al., 2024, D-FINE; spec detr 2.5).

Legend, beside that of `eyas.losses.set_criterion`: ``n`` bins of an edge.

Beside what `SetCriterion` teaches, distributions are taught where the edges lie, and every layer is taught what the
last one says. Each output matches for its classes; for boxes all of them share the pairs that most outputs agree on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from eyas.assign import HungarianMatcher, OverlapMatcher
from eyas.boxes import cxcywh_to_xyxy, elementwise_iou
from eyas.losses.set_criterion import (
    Edges,
    Objects,
    SetCriterion,
    Supervised,
    no_denoising,
    paired_boxes,
    sum_of_kind,
    total_over_ranks,
)
from eyas.nn.edges import bin_distances, moves_to, neighbours
from eyas.types import FineBoxes, Progress, SetPrediction

TEMPERATURE = 5.0  # at which distributions of two layers are compared


class FineCriterion(SetCriterion):
    """`SetCriterion` with two terms for distributions: ``fgl``, where edges are, and ``ddf``, what the last layer says.

    Args:
        scale: reach of the model's box head.
        fgl_gain: weight of the cross-entropy of edges, which counts as much as the box overlaps.
        ddf_gain: weight of the distance to the distributions of the last layer.
        local: whether distributions are taught at all, and pairs agreed on; without, each output has its own pairs.

    The others are those of `SetCriterion`. Override `edge_loss` or `teaching_loss` for other losses of distributions.
    """

    compiled_methods = SetCriterion.compiled_methods

    def __init__(
        self, *, scale: float, fgl_gain: float = 0.15, ddf_gain: float = 1.5, local: bool = True, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.gains |= {"fgl": float(fgl_gain), "ddf": float(ddf_gain)} if local else {}
        self.scale = float(scale)
        self.local = local

    def supervised(self, pred: SetPrediction, objects: Objects) -> list[Supervised]:
        """Return the stacks: classes with a matching for each output, boxes with common pairs, and denoising."""
        assert pred.fine is not None, "a model whose boxes have no distributions has a SetCriterion"
        meta = no_denoising(pred) if pred.dn_meta is None else pred.dn_meta
        first, layers = meta.split[0], pred.dec_scores.shape[0]
        noisy, real = slice(0, first), slice(first, None)
        kinds = ("enc", "pre", *["aux"] * (layers - 1), "main")
        noisy_kinds = (*["aux_dn"] * layers, "dn")
        scores = torch.cat((pred.enc_scores[None], layers_of(pred.fine.first_scores, pred.dec_scores, real)))
        boxes = torch.cat((pred.enc_bboxes[None], layers_of(pred.fine.first_bboxes, pred.dec_bboxes, real)))
        scores, boxes = scores.float(), boxes.float()
        noisy_scores = layers_of(pred.fine.first_scores, pred.dec_scores, noisy).float()
        noisy_boxes = layers_of(pred.fine.first_bboxes, pred.dec_bboxes, noisy).float()
        query = self.match(scores, boxes, objects)
        rows = torch.arange(len(objects.labels), device=query.device)
        matched = Supervised(kinds, scores, boxes, objects.image, query, rows)
        denoised = Supervised(
            noisy_kinds, noisy_scores, noisy_boxes, meta.image, meta.query.expand(layers + 1, -1), meta.target
        )
        if not self.local:
            return [matched, denoised]
        return [
            matched._replace(part="classes"),
            agreed(matched)._replace(part="boxes", edges=edges_of(pred.fine, scores, real)),
            denoised._replace(edges=edges_of(pred.fine, noisy_scores, noisy)),
        ]

    def shown(self, kinds: Sequence[str], losses: Tensor) -> Tensor:
        """Return what is logged: of the last layer, but what it teaches, of the layers that are taught."""
        is_taught = torch.tensor([name == "ddf" for name in self.gains], device=losses.device)
        return torch.where(is_taught, sum_of_kind(kinds, losses, "aux"), super().shown(kinds, losses))

    def shared(self, stacks: list[Supervised]) -> tuple[list[Supervised], Tensor, int]:
        """Return the stacks, the divisor of the losses of each, and over how many processes they are shared.

        What the last layer teaches is a mean over queries with an object and one over those without, weighted by the
        roots of their numbers; denoising takes these weights over.
        """
        if not self.local:
            return super().shared(stacks)
        taught = [stack for stack in stacks if stack.edges is not None]
        counts = [self.count_pairs(stack) for stack in stacks]
        for stack in taught:
            found = has_object(stack).sum().float()
            counts += [found, has_object(stack).numel() - found]
        totals, ranks = total_over_ranks(torch.stack(counts))
        pairs, found_free = totals[: len(stacks)], totals[len(stacks) :].view(-1, 2)
        weight = found_free[0].sqrt() / found_free[0].sqrt().sum()
        shares = {id(stack): weight / own for stack, own in zip(taught, found_free, strict=True)}
        known = [
            # Times the divisor that all losses of a stack get.
            stack if stack.edges is None else with_shares(stack, shares[id(stack)] * total)
            for stack, total in zip(stacks, pairs, strict=True)
        ]
        return known, pairs, ranks

    def layer_losses(self, stack: Supervised, objects: Objects) -> dict[str, Tensor]:
        """Return the sum of each loss for each output (N,), by the names in ``gains``."""
        losses = super().layer_losses(stack, objects)
        if not self.local:
            return losses
        losses |= {"fgl": torch.zeros_like(losses["l1"]), "ddf": torch.zeros_like(losses["l1"])}
        if stack.edges is not None:
            losses |= self.edge_losses(stack, stack.edges, objects)
        return losses

    def edge_losses(self, stack: Supervised, edges: Edges, objects: Objects) -> dict[str, Tensor]:
        """Return the sum of both losses of distributions for each output (N,); 0 for outputs that have none."""
        layers = edges.logits.shape[0]
        before = stack.boxes.new_zeros(len(stack.kinds) - layers)
        pred, target, found = paired_boxes(stack, objects)
        corners = cxcywh_to_xyxy(target[-1])  # (P, 4), the same pairs in all outputs
        overlap = elementwise_iou(cxcywh_to_xyxy(pred[-layers:].detach()), corners) * found[-layers:]  # (L, P)
        query = stack.query[-1].clamp(min=0)
        moved = moves_to(corners, edges.reference[stack.image, query], self.scale)  # (P, 4)
        at_pairs = edges.logits[:, stack.image, query].unflatten(-1, (4, -1))  # (L, P, 4, n)
        fgl = (overlap * self.edge_loss(at_pairs, moved).sum(-1)).sum(1)
        logits = edges.logits.unflatten(-1, (4, -1))
        weight = teaching_weights(stack, edges, overlap)
        ddf = (weight * self.teaching_loss(logits, logits[-1].detach()).mean(-1)).sum((1, 2))
        return {"fgl": torch.cat((before, fgl)), "ddf": torch.cat((before, ddf))}

    def edge_loss(self, logits: Tensor, moved: Tensor) -> Tensor:
        """Return the cross-entropy (..., 4) of distributions (..., 4, n) with the two bins beside how far edges moved.

        ``moved`` (..., 4) is in the units of `eyas.nn.edges`.
        """
        below, above = neighbours(moved, bin_distances(self.scale, device=moved.device, dtype=moved.dtype))
        log_p = logits.log_softmax(-1)
        below = below.expand(log_p.shape[:-1])[..., None]
        low, high = log_p.gather(-1, below).squeeze(-1), log_p.gather(-1, below + 1).squeeze(-1)
        return -((1 - above) * low + above * high)

    def teaching_loss(self, logits: Tensor, teacher: Tensor) -> Tensor:
        """Return how far distributions (L, B, Q, 4, n) are from those of the teacher (B, Q, 4, n): (L, B, Q, 4)."""
        wanted = (teacher / TEMPERATURE).log_softmax(-1).expand_as(logits)
        own = (logits / TEMPERATURE).log_softmax(-1)
        return TEMPERATURE**2 * kl_div(own, wanted, reduction="none", log_target=True).sum(-1)


class LateCriterion(FineCriterion):
    """`FineCriterion` that finds pairs by class and overlap alone towards the end of a run, as DEIMv2 does.

    Args:
        late_matcher: takes the place of ``matcher`` from there on.

    The others are those of `FineCriterion`. Without a call of `set_progress` nothing changes.
    """

    # Of the whole run, stage 2 included; the authors' are 0.74 (L) to 0.9 (atto, femto, pico), in the mean 0.80.
    FROM: ClassVar[float] = 0.8
    compiled_methods = FineCriterion.compiled_methods

    def __init__(self, *, late_matcher: HungarianMatcher | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.late_matcher = OverlapMatcher() if late_matcher is None else late_matcher
        self.is_late = False

    def set_progress(self, progress: Progress) -> None:
        """Choose the matcher of this epoch: a function of ``progress`` alone."""
        self.is_late = progress.fraction >= self.FROM

    def match(self, scores: Tensor, boxes: Tensor, objects: Objects) -> Tensor:
        """Return the query of each object, see `SetCriterion.match`."""
        if not self.is_late:
            return super().match(scores, boxes, objects)
        return self.late_matcher(scores.detach(), boxes.detach(), *objects)


def layers_of(first: Tensor, layers: Tensor, queries: slice) -> Tensor:
    """Return (L + 1, B, q, c): some queries of what came before the layers (B, Q, c) and of the layers (L, B, Q, c)."""
    return torch.cat((first[None, :, queries], layers[:, :, queries]))


def edges_of(fine: FineBoxes, scores: Tensor, queries: slice) -> Edges:
    """Return the distributions of some queries; ``scores`` (N, B, Q, C) are logits of these."""
    confidence = scores[-1].detach().sigmoid().amax(-1)
    nothing = confidence.new_zeros(())
    return Edges(fine.edges[:, :, queries].float(), fine.reference[:, queries].float(), confidence, nothing, nothing)


def with_shares(stack: Supervised, shares: Tensor) -> Supervised:
    """Return the stack with the weights (2,) of teaching queries with and without an object."""
    assert stack.edges is not None
    return stack._replace(edges=stack.edges._replace(share_found=shares[0], share_free=shares[1]))


def agreed(stack: Supervised) -> Supervised:
    """Return the stack with the pairs that its outputs agree on, the same for all: P = N times as many rows.

    Of all pairs of a query and an object that some output has matched, each query keeps the object that most outputs
    gave it, the first one of several; an object may keep several queries. Shapes do not depend on what was matched, so
    nothing waits for the device.
    """
    n, objects = stack.query.shape
    b, q = stack.scores.shape[1:3]
    found = stack.query >= 0
    query = stack.query.clamp(min=0)
    row = torch.arange(objects, device=query.device)
    votes = torch.zeros(objects, q, device=query.device).scatter_add_(1, query.T, found.T.float())
    rank = votes * objects - row[:, None]  # more votes first, then the earlier object
    image = stack.image[:, None].expand(-1, q)
    best = rank.new_full((b, q), -math.inf).scatter_reduce_(0, image, rank, "amax")
    wins = rank == best[stack.image]
    # Each output lists its pairs: a pair is taken from the first that has it.
    listed = torch.stack([(stack.query[:i] == stack.query[i]).any(0) for i in range(n)])
    kept = found & wins[row, query] & ~listed
    pairs = torch.where(kept, stack.query, -1).flatten()
    return stack._replace(image=stack.image.repeat(n), query=pairs.expand(n, -1), target=stack.target.repeat(n))


def has_object(stack: Supervised) -> Tensor:
    """Return (B, Q) bool: the queries that have an object in the last output of the stack."""
    b, q = stack.scores.shape[1:3]
    cell = stack.image * q + stack.query[-1].clamp(min=0)
    counted = torch.zeros(b * q, device=stack.scores.device)
    return counted.scatter_reduce_(0, cell, (stack.query[-1] >= 0).float(), "amax").view(b, q) > 0


def teaching_weights(stack: Supervised, edges: Edges, overlap: Tensor) -> Tensor:
    """Return how much each query of each layer is taught by the last one (L, B, Q).

    A query with an object counts as its box overlaps that (L, P), one without as sure as the teacher is of it.
    """
    layers, b, q, _ = edges.logits.shape
    cell = (stack.image * q + stack.query[-1].clamp(min=0)).expand(layers, -1)
    overlaps = overlap.new_zeros(layers, b * q).scatter_reduce_(1, cell, overlap, "amax").view(layers, b, q)
    return torch.where(has_object(stack), edges.share_found * overlaps, edges.share_free * edges.confidence).detach()
