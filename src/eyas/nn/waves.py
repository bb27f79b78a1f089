"""Positions as sines and cosines of many wave lengths, sines and cosines in turn (spec detr-more 2.2, items 4 and 5).

`eyas.nn.encoder.position_code` is the same idea with all sines before all cosines.

Legend: ``B`` images, ``Q`` queries.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

QUERY_TEMPERATURE = 10_000.0


def waves(angles: Tensor, channels: int, temperature: float) -> Tensor:
    """Return (..., channels) of angles (...): sines in even channels, cosines in odd ones.

    Wave lengths grow from 2 pi to almost 2 pi ``temperature``; ``channels`` is even.
    """
    steps = torch.arange(channels // 2, device=angles.device, dtype=angles.dtype)
    scaled = angles[..., None] / temperature ** (2 * steps / channels)
    return torch.stack((scaled.sin(), scaled.cos()), -1).flatten(-2)


def box_code(boxes: Tensor, channels: int) -> Tensor:
    """Return the code (B, Q, 4 channels) of boxes (B, Q, 4) cx cy w h in [0, 1]: of cy, cx, w and h, in that order."""
    cx, cy, w, h = (2 * math.pi * boxes).unbind(-1)
    return torch.cat([waves(value, channels, QUERY_TEMPERATURE) for value in (cy, cx, w, h)], -1)


def map_code(rows: Tensor, columns: Tensor, channels: int, *, temperature: float, offset: float = 0.0) -> Tensor:
    """Return the code (B, h * w, channels) of the cells of a map; half of the channels tell the row.

    Rows (B, h) and columns (B, w), both bool, say which belong to the image: only those are counted, from 1, and what
    is coded is the count plus ``offset`` as a share of the last count.
    """
    halves = []
    for lines in (rows, columns):
        count = lines.cumsum(1, dtype=torch.float32)
        share = (count + offset) / (count[:, -1:] + 1e-6)
        halves.append(waves(2 * math.pi * share, channels // 2, temperature))
    y, x = halves
    height, width = rows.shape[1], columns.shape[1]
    code = (y[:, :, None].expand(-1, -1, width, -1), x[:, None].expand(-1, height, -1, -1))
    return torch.cat(code, -1).flatten(1, 2)
