"""Where the queries of a set detector start: one box for every cell of every level (spec detr 1.5).

Legend: ``N`` cells of all levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SIZE = 0.05  # side of a box on the first level, as a share of the image; it doubles from level to level
MARGIN = 0.01  # a box is used if every number of it is farther than this from 0 and 1
CLAMP = 1e-5  # smallest share that `inverse_sigmoid` tells from 0 and 1: logits stay within about 11.5


def inverse_sigmoid(x: Tensor, eps: float = CLAMP) -> Tensor:
    """Return logits of numbers in [0, 1], with ``x`` and ``1 - x`` at least ``eps``."""
    x = x.clamp(0, 1)
    return x.clamp(min=eps).log() - (1 - x).clamp(min=eps).log()


def anchor_boxes(
    shapes: Sequence[tuple[int, int]], *, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return (N, 4) cx cy w h in [0, 1]: a square box in the middle of every cell, rows before columns."""
    levels = []
    for level, (height, width) in enumerate(shapes):
        y = (torch.arange(height, device=device, dtype=dtype) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=dtype) + 0.5) / width
        centres = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1).flatten(0, 1)
        levels.append(torch.cat((centres, torch.full_like(centres, SIZE * 2**level)), -1))
    return torch.cat(levels)


def anchor_logits(
    shapes: Sequence[tuple[int, int]], *, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return the logits (1, N, 4) of `anchor_boxes`, infinite where not used, and whether each is used (1, N, 1)."""
    boxes = anchor_boxes(shapes, device=device, dtype=dtype)[None]
    valid = ((boxes > MARGIN) & (boxes < 1 - MARGIN)).all(-1, keepdim=True)
    return boxes.logit().masked_fill(~valid, torch.inf), valid
