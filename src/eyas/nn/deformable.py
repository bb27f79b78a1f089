"""Multi-scale deformable attention (Zhu et al., 2021; spec detr 1.5). Sub-module names are state-dict keys.

Legend: ``B`` images, ``Q`` queries, ``N`` positions of all levels, ``h`` heads, ``D`` channels of a head, ``L`` levels,
``S`` points of all levels together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

Shapes = Sequence[tuple[int, int]]  # (height, width) of every level


def deformable_sample(
    value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor, points: Sequence[int] | None = None
) -> Tensor:
    """Return (B, Q, h D): for every query and head, the weighted sum of its bilinear samples.

    One ``grid_sample`` for each level, with heads as images. Against one gather of the four corners of all samples,
    it takes half the time on a CPU, forward and backward (measured at 128 and 320 px, two threads).

    Args:
        value: (B, N, h, D), levels one after the other, inside a level rows before columns.
        shapes: height and width of every level; their products sum to N.
        locations: (B, Q, h, S, 2) x y, 0 and 1 are the borders of the map; what lies outside counts as zero.
        weights: (B, Q, h, S) of the samples.
        points: points of every level; they sum to S. None: equally many.
    """
    batch, _, heads, width = value.shape
    queries, total = locations.shape[1], locations.shape[3]
    counts = [total // len(shapes)] * len(shapes) if points is None else list(points)
    assert len(counts) == len(shapes), "one number of points for every level"
    assert sum(counts) == total, "locations of another number of points"
    # Differences of positions are lost in half precision: at 80 cells it knows no place between steps of 1/16 cell.
    table, locations, weights = at_least_float32(value), at_least_float32(locations), at_least_float32(weights)
    maps = table.permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in shapes], -1)  # (B h, D, H W) each
    # Points before queries: the longest axis last makes sampling and summing run over contiguous memory.
    grids = (2 * locations - 1).permute(0, 2, 3, 1, 4).flatten(0, 1).split(counts, 1)  # (B h, P, Q, 2) each
    samples = [
        grid_sample(m.unflatten(-1, shape), grid, padding_mode="zeros", align_corners=False)
        for m, shape, grid in zip(maps, shapes, grids, strict=True)
    ]  # (B h, D, P, Q) each
    weighted = torch.cat(samples, 2) * weights.permute(0, 2, 3, 1).flatten(0, 1)[:, None]
    return weighted.sum(2).view(batch, heads * width, queries).transpose(1, 2).to(value.dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` in at least float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class MSDeformAttn(nn.Module):
    """Attention of queries to a few points around their reference boxes, on every level.

    Args:
        dim: channels of queries and of the map.
        levels: number of levels.
        heads: attention heads; they share the channels.
        points: points of one head, the same for all levels or one number for each.
        project: whether the map is projected before it is sampled, and the sum after it; without, the channels of the
            map are shared by the heads as they are.

    Raises:
        ValueError: the channels cannot be shared by the heads, or the points do not fit the levels.
    """

    def __init__(
        self, dim: int = 256, levels: int = 3, heads: int = 8, points: int | Sequence[int] = 4, project: bool = True
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels cannot be shared by {heads} heads: choose a divisor of {dim}")
        self.points = [points] * levels if isinstance(points, int) else [int(p) for p in points]
        if len(self.points) != levels or min(self.points) < 1:
            raise ValueError(f"points is {points!r}: give one number >= 1, or one for each of {levels} levels")
        self.heads = heads
        total = heads * sum(self.points)
        self.sampling_offsets = nn.Linear(dim, 2 * total)
        self.attention_weights = nn.Linear(dim, total)
        self.value_proj = nn.Linear(dim, dim) if project else nn.Identity()
        self.output_proj = nn.Linear(dim, dim) if project else nn.Identity()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start with equal weights, and points on one ray for each head, farther out one by one."""
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        angle = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        ray = torch.stack((angle.cos(), angle.sin()), -1)
        ray = ray / ray.abs().amax(-1, keepdim=True)  # (h, 2), on the border of the unit square
        steps = torch.cat([torch.arange(1, p + 1, dtype=torch.float32) for p in self.points])
        self.sampling_offsets.bias.copy_((ray[:, None] * steps[:, None]).flatten())
        for projection in (self.value_proj, self.output_proj):
            if isinstance(projection, nn.Linear):
                nn.init.xavier_uniform_(projection.weight)
                nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, boxes: Tensor, memory: Tensor, shapes: Shapes) -> Tensor:
        """Map queries (B, Q, dim) with reference ``boxes`` (B, Q, 4) cx cy w h in [0, 1] to (B, Q, dim).

        ``memory`` (B, N, dim) holds the levels of ``shapes`` one after the other. An offset of the number of points
        of its level reaches half a box.
        """
        batch, queries, _ = query.shape
        offsets = self.sampling_offsets(query).view(batch, queries, self.heads, -1, 2)
        weights = self.attention_weights(query).view(batch, queries, self.heads, -1).softmax(-1)
        value = self.value_proj(memory).view(batch, memory.shape[1], self.heads, -1)
        boxes = boxes[:, :, None, None]
        locations = boxes[..., :2] + self._shares(offsets) * boxes[..., 2:] * 0.5
        return self.output_proj(deformable_sample(value, shapes, locations, weights, self.points))

    def _shares(self, offsets: Tensor) -> Tensor:
        """Return offsets (B, Q, h, S, 2) divided by the number of points of their level."""
        if len(set(self.points)) == 1:
            return offsets / self.points[0]
        return torch.cat([o / p for o, p in zip(offsets.split(self.points, 3), self.points, strict=True)], 3)
