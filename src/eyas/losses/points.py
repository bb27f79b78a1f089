"""Anchor points of feature maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def anchor_points(feats: Sequence[Tensor], strides: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the cell centres (A, 2) as x, y in cells, and the stride in pixels (A, 1) of each.

    ``feats`` are maps (B, C, H, W), one for each stride; inside a level rows come before columns.
    Made on the maps' device from their shapes alone, so nothing waits for the device.
    """
    points, sizes = [], []
    for feat, stride in zip(feats, strides, strict=True):
        h, w = feat.shape[-2:]
        y = torch.arange(h, device=feat.device, dtype=torch.float32) + 0.5
        x = torch.arange(w, device=feat.device, dtype=torch.float32) + 0.5
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack((grid_x, grid_y), -1).view(-1, 2))
        sizes.append(torch.full((h * w, 1), float(stride), device=feat.device))
    return torch.cat(points), torch.cat(sizes)
