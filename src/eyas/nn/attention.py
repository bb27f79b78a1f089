"""Position-aware self-attention on feature maps (spec core C.0). Sub-module names are state-dict keys.

Legend: ``B`` images, ``C`` channels, ``N`` = H x W positions, ``h`` heads, ``D`` channels of a head, ``K`` of its key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from eyas.nn.conv import Conv

if TYPE_CHECKING:
    from torch import Tensor


class Attention(nn.Module):
    """Multi-head self-attention over positions, plus a depthwise convolution of the values as position code."""

    def __init__(self, dim: int, heads: int = 8, ratio: float = 0.5) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.key_dim = int(self.head_dim * ratio)
        self.scale = self.key_dim**-0.5
        self.qkv = Conv(dim, dim + 2 * self.key_dim * heads, act=False)
        self.proj = Conv(dim, dim, act=False)
        self.pe = Conv(dim, dim, 3, g=dim, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W). Every step is a view or a copy in channels-last order."""
        b, c, h, w = x.shape
        qkv = self.qkv(x).permute(0, 2, 3, 1).reshape(b, h * w, self.heads, -1)  # (B, N, h, 2K + D)
        q, k, v = qkv.split((self.key_dim, self.key_dim, self.head_dim), dim=3)
        scores = (q * self.scale).transpose(1, 2) @ k.permute(0, 2, 3, 1)  # (B, h, N, N)
        mixed = scores.softmax(dim=-1) @ v.transpose(1, 2)  # (B, h, N, D)
        mixed = mixed.transpose(1, 2).reshape(b, h, w, c).permute(0, 3, 1, 2)
        values = v.reshape(b, h, w, c).permute(0, 3, 1, 2)
        return self.proj(mixed + self.pe(values))


class PSABlock(nn.Module):
    """Attention and a two-layer network, each with a residual: (B, c, H, W) -> (B, c, H, W)."""

    def __init__(self, c: int, ratio: float = 0.5, heads: int = 4, shortcut: bool = True) -> None:
        super().__init__()
        self.attn = Attention(c, heads, ratio)
        self.ffn = nn.Sequential(Conv(c, 2 * c), Conv(2 * c, c, act=False))
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c, H, W) to (B, c, H, W)."""
        x = x + self.attn(x) if self.add else self.attn(x)
        return x + self.ffn(x) if self.add else self.ffn(x)


class C2PSA(nn.Module):
    """Split the channels and send one half through ``n`` `PSABlock`s: (B, c1, H, W) -> (B, c1, H, W)."""

    def __init__(self, c1: int, c2: int, n: int = 1, e: float = 0.5) -> None:
        super().__init__()
        if c1 != c2:
            raise ValueError(f"C2PSA keeps its width: it got {c1} channels and was asked for {c2}")
        self.c = int(c1 * e)
        self.cv1 = Conv(c1, 2 * self.c)
        self.cv2 = Conv(2 * self.c, c1)
        self.m = nn.Sequential(*(PSABlock(self.c, 0.5, max(self.c // 64, 1)) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c1, H, W)."""
        kept, mixed = self.cv1(x).split((self.c, self.c), 1)
        return self.cv2(torch.cat((kept, self.m(mixed)), 1))
