"""The plain vision transformer's layers (Dosovitskiy et al., 2021), in the forms that published weights need.

Legend: ``B`` images, ``N`` tokens, ``D`` width, ``h`` x ``w`` patches. Sub-module names are keys of the files of DINO,
MAE and DINOv2 (spec detr-more 3.2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention, silu

HEAD = 64  # channels of a head in every published network
BASE = 100.0  # of the wave lengths of turned positions (DINOv3)


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), the activation of OpenAI's CLIP: (...) -> (...)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (...) to (...)."""
        return x * torch.sigmoid(1.702 * x)


class Mlp(nn.Module):
    """Two linear layers around an activation: (B, N, D) -> (B, N, D); inner width ``hidden``."""

    def __init__(self, width: int, hidden: int, act: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = act
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        return self.fc2(self.act(self.fc1(x)))


class SwiGLU(nn.Module):
    """SiLU of one half times the other half, projected: (B, N, D) -> (B, N, D); halves of ``hidden``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(silu(gate) * value)


class LayerScale(nn.Module):
    """One factor for each channel of what a block adds: (B, N, D) -> (B, N, D)."""

    undecayed = frozenset({"gamma"})

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        return x * self.gamma


class Attention(nn.Module):
    """Self-attention of all tokens: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, turn: Tensor | None = None) -> Tensor:
        """Map (B, N, D) to (B, N, D); ``turn`` (2, patches, head) turns queries and keys of the last tokens."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if turn is not None:
            q, k = turned(q, turn), turned(k, turn)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a feed-forward part, each normalised before and added: (B, N, D) -> (B, N, D).

    Args:
        width: D.
        heads: of the attention.
        mlp: the feed-forward part.
        eps: of the normalisation.
        bias: whether queries, keys and values have one.
        scale: where the factors of what is added start; None for none.
    """

    def __init__(self, width: int, heads: int, mlp: nn.Module, eps: float, bias: bool, scale: float | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads, bias)
        self.ls1 = nn.Identity() if scale is None else LayerScale(width, scale)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = mlp
        self.ls2 = nn.Identity() if scale is None else LayerScale(width, scale)

    def forward(self, x: Tensor, turn: Tensor | None = None) -> Tensor:
        """Map (B, N, D) to (B, N, D); ``turn`` as of `Attention`."""
        x = x + self.ls1(self.attn(self.norm1(x), turn))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """A linear map of every patch: (B, ch, H, W) -> (B, D, H / patch, W / patch)."""

    def __init__(self, ch: int, width: int, patch: int, bias: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(ch, width, patch, patch, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, ch, H, W) to (B, D, H / patch, W / patch)."""
        return self.proj(x)


class Rotary(nn.Module):
    """Positions told by turning queries and keys (spec detr 4.2): angles of row and column for pairs of channels."""

    periods: Tensor

    def __init__(self, head: int = HEAD) -> None:
        super().__init__()
        self.register_buffer("periods", BASE ** (torch.arange(head // 4) / (head // 4)))

    def forward(self, h: int, w: int) -> Tensor:
        """Return cosines and sines (2, h w, head) of the centres of h x w patches, which span [-1, 1]."""
        y, x = (((torch.arange(n, device=self.periods.device) + 0.5) / n * 2 - 1) for n in (h, w))
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).view(h * w, 2, 1)
        angles = (2 * math.pi * grid / self.periods.float()).flatten(1).repeat(1, 2)
        return torch.stack((angles.cos(), angles.sin()))


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Return (B, heads, N, head) with the last tokens, the patches, turned by `Rotary`'s angles."""
    first = x.shape[2] - turn.shape[1]
    tokens, patches = x[:, :, :first], x[:, :, first:]
    a, b = patches.chunk(2, -1)
    cos, sin = turn.to(x.dtype)
    return torch.cat((tokens, patches * cos + torch.cat((-b, a), -1) * sin), 2)


def resized_positions(code: Tensor, h: int, w: int) -> Tensor:
    """Return a position code (1, first + n n, D) for h x w patches: (1, first + h w, D).

    The rows before the square grid, for tokens of no place, stay; the grid is resampled bicubically with half-pixel
    centres, which on the grid that it was trained with changes nothing.
    """
    side = math.isqrt(code.shape[1])
    first = code.shape[1] - side * side
    if (h, w) == (side, side):
        return code
    grid = code[:, first:].transpose(1, 2).unflatten(2, (side, side))
    grid = interpolate(grid, size=(h, w), mode="bicubic", align_corners=False)
    return torch.cat((code[:, :first], grid.flatten(2).transpose(1, 2)), 1)
