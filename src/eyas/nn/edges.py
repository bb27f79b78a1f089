"""Boxes whose edges are distributions: from bins to boxes and back (Peng et al., 2024, D-FINE; spec detr 2.4).

An edge of a box is told by how far it lies from that of a reference box, as a distribution over ``BINS`` distances that
are dense near 0. Distances are in sides of the reference box divided by ``scale``.

Legend: ``n`` = `BINS`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eyas.boxes import EPS

BINS = 33
REACH = 0.5  # the last but one bin lies at this share of the reference box's side


def bin_distances(scale: float, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the distances (n,) of the bins: geometric steps from 0 up to half a side, and one bin far beyond."""
    half, limit = BINS // 2, REACH * scale
    step = (limit + 1) ** (1 / (half - 1))
    positive = step ** torch.arange(half, device=device, dtype=dtype) - 1
    far = torch.full_like(positive[:1], 2 * limit)
    return torch.cat((-far, -positive[1:].flip(0), positive, far))


def expected_distances(logits: Tensor, distances: Tensor) -> Tensor:
    """Return the expected distances (..., 4) of left, top, right and bottom from logits (..., 4 n)."""
    return logits.unflatten(-1, (4, -1)).softmax(-1) @ distances


def move_edges(reference: Tensor, moved: Tensor, scale: float) -> Tensor:
    """Return boxes (..., 4) cx cy w h of references (..., 4) cx cy w h whose edges are ``moved`` (..., 4) outwards.

    Edges may pass each other: width and height are negative then.
    """
    centre, side = reference[..., :2], reference[..., 2:] / scale
    low = centre - (scale / 2 + moved[..., :2]) * side
    high = centre + (scale / 2 + moved[..., 2:]) * side
    return torch.cat(((low + high) / 2, high - low), -1)


def moves_to(corners: Tensor, reference: Tensor, scale: float) -> Tensor:
    """Return how far (..., 4) the edges of references (..., 4) cx cy w h must move to those of ``corners`` (..., 4)."""
    centre, side = reference[..., :2], reference[..., 2:].clamp(min=EPS) / scale
    return torch.cat(((centre - corners[..., :2]) / side, (corners[..., 2:] - centre) / side), -1) - scale / 2


def neighbours(moved: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bin (...) int64 below each distance (...), and the share in [0, 1] that its upper neighbour has.

    Distances beyond the first or last bin count as these.
    """
    below = (torch.bucketize(moved, distances, right=True) - 1).clamp(0, len(distances) - 2)
    low, high = distances[below], distances[below + 1]
    return below, ((moved - low) / (high - low)).clamp(0, 1)
