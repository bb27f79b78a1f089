"""Attention over the positions of one map (AIFI; spec core C.3, spec detr 1.4). Sub-module names are state-dict keys.

Legend: ``B`` images, ``C`` channels, ``N`` = H x W positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

TEMPERATURE = 10_000.0  # ratio of the longest to the shortest wave length, almost


def position_code(
    height: int,
    width: int,
    channels: int,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the two-dimensional sine-cosine code (1, height * width, channels).

    A row y and a column x, both counted from 0, give [sin(y w), cos(y w), sin(x w), cos(x w)] for ``channels / 4``
    frequencies w from 1 down to almost 1 / 10000; rows before columns.

    Raises:
        ValueError: the channels are no multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"{channels} channels do not divide into sine and cosine of two axes: use a multiple of 4")
    quarter = channels // 4
    steps = torch.arange(quarter, device=device, dtype=torch.float32)
    frequency = TEMPERATURE ** (-steps / quarter)
    y = torch.arange(height, device=device, dtype=torch.float32)[:, None] * frequency
    x = torch.arange(width, device=device, dtype=torch.float32)[:, None] * frequency
    rows = torch.cat((y.sin(), y.cos()), -1)[:, None].expand(-1, width, -1)
    columns = torch.cat((x.sin(), x.cos()), -1)[None].expand(height, -1, -1)
    return torch.cat((rows, columns), -1).flatten(0, 1)[None].to(dtype)


def post_norm_layer(
    x: Tensor,
    code: Tensor,
    attention: nn.MultiheadAttention,
    norm1: nn.Module,
    expand: nn.Linear,
    contract: nn.Linear,
    norm2: nn.Module,
) -> Tensor:
    """Map tokens (B, N, C) to (B, N, C): self-attention and a GELU network, each followed by its normalisation.

    ``code`` (1, N, C) tells queries and keys, but not values, where they are. ``attention`` is batch first.
    """
    coded = x + code
    x = norm1(x + attention(coded, coded, x, need_weights=False)[0])
    return norm2(x + contract(gelu(expand(x))))


class AIFI(nn.Module):
    """One transformer encoder layer over the positions of a map: (B, c, H, W) -> (B, c, H, W)."""

    def __init__(self, c: int, ffn: int = 2048, heads: int = 8) -> None:
        super().__init__()
        if c % heads:
            raise ValueError(f"{c} channels cannot be shared by {heads} heads: choose a divisor of {c}")
        self.ma = nn.MultiheadAttention(c, heads, batch_first=True)
        self.fc1 = nn.Linear(c, ffn)
        self.fc2 = nn.Linear(ffn, c)
        self.norm1 = nn.LayerNorm(c)
        self.norm2 = nn.LayerNorm(c)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c, H, W) to (B, c, H, W)."""
        _, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        code = position_code(h, w, c, device=x.device, dtype=x.dtype)
        tokens = post_norm_layer(tokens, code, self.ma, self.norm1, self.fc1, self.fc2, self.norm2)
        return tokens.transpose(1, 2).unflatten(2, (h, w))
