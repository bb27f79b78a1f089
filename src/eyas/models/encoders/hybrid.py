"""The hybrid encoder of RT-DETR: attention on the smallest map only, convolutions for everything else (detr 1.4).

Legend: ``B`` images, ``D`` hidden width, ``N`` = H x W positions. Sub-module names are state-dict keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from eyas.nn.conv_norm import ConvNorm
from eyas.nn.encoder import position_code, post_norm_layer
from eyas.nn.recomputed import Recomputed
from eyas.nn.rep import RepConv

REPEATS = 3  # RepVGG units of a fusion block at depth_mult 1


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward part with GELU, each normalised after its sum: (B, N, D) -> (B, N, D)."""

    def __init__(self, hidden: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.linear1 = nn.Linear(hidden, ffn)
        self.linear2 = nn.Linear(ffn, hidden)
        self.norm1 = nn.LayerNorm(hidden)
        self.norm2 = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Map tokens (B, N, D) to (B, N, D); ``code`` (1, N, D) tells queries and keys where they are."""
        return post_norm_layer(x, code, self.self_attn, self.norm1, self.linear1, self.linear2, self.norm2)


class EncoderStack(nn.Module):
    """Encoder layers one after the other on the positions of a map: (B, D, H, W) -> (B, D, H, W)."""

    def __init__(self, count: int, hidden: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(hidden, heads, ffn) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, H, W) to (B, D, H, W)."""
        d, h, w = x.shape[1:]
        tokens = x.flatten(2).transpose(1, 2)
        code = position_code(h, w, d, device=x.device, dtype=x.dtype)
        for layer in self.layers:
            tokens = layer(tokens, code)
        return tokens.transpose(1, 2).unflatten(2, (h, w))


class RepVGG(RepConv):
    """`RepConv` under the key names of this layout: (B, c, H, W) -> (B, c, H, W)."""

    def __init__(self, c: int) -> None:
        super().__init__(c, c)

    @staticmethod
    def branch(c1: int, c2: int, k: int) -> ConvNorm:
        """Return a convolution with normalisation and no activation."""
        return ConvNorm(c1, c2, k)


class CSPRep(Recomputed):
    """Two paths, one through ``n`` RepVGG units, summed: (B, c1, H, W) -> (B, c2, H, W); inner width ``hidden``."""

    def __init__(self, c1: int, c2: int, hidden: int, n: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(c1, hidden, act=nn.SiLU())
        self.conv2 = ConvNorm(c1, hidden, act=nn.SiLU())
        self.bottlenecks = nn.Sequential(*(RepVGG(hidden) for _ in range(n)))
        self.conv3 = ConvNorm(hidden, c2, act=nn.SiLU()) if hidden != c2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        return self.conv3(self.bottlenecks(self.conv1(x)) + self.conv2(x))


class HybridEncoder(nn.Module):
    """Bring maps to one width, attend within the smallest, then mix them top-down and bottom-up.

    Args:
        channels: of the maps, from the largest map to the smallest.
        hidden: D, channels of every map that leaves.
        ffn: inner width of the encoder layers; ``heads`` and ``layers`` are theirs too.
        expansion: inner width of the fusion blocks as a share of D.
        depth_mult: factor of the RepVGG units in each fusion block, 3 at 1.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        hidden: int = 256,
        ffn: int = 1024,
        heads: int = 8,
        layers: int = 1,
        expansion: float = 1.0,
        depth_mult: float = 1.0,
    ) -> None:
        super().__init__()
        self.channels = (hidden,) * len(channels)
        steps = range(len(channels) - 1)
        units = round(REPEATS * depth_mult)
        self.input_proj = nn.ModuleList(self.projection(c, hidden) for c in channels)
        self.encoder = nn.ModuleList([EncoderStack(layers, hidden, heads, ffn)])
        self.lateral_convs = nn.ModuleList(self.lateral(hidden) for _ in steps)
        self.fpn_blocks = nn.ModuleList(self.fusion(hidden, expansion, units) for _ in steps)
        self.downsample_convs = nn.ModuleList(self.down(hidden) for _ in steps)
        self.pan_blocks = nn.ModuleList(self.fusion(hidden, expansion, units) for _ in steps)

    def projection(self, c: int, hidden: int) -> nn.Module:
        """Return what brings a map of ``c`` channels to the common width."""
        return ConvNorm(c, hidden)

    def lateral(self, hidden: int) -> nn.Module:
        """Return what a small map passes before it is enlarged: (B, D, H, W) -> (B, D, H, W)."""
        return ConvNorm(hidden, hidden, act=nn.SiLU())

    def fusion(self, hidden: int, expansion: float, units: int) -> nn.Module:
        """Return a block that mixes two maps, joined by `join`: (B, 2 D, H, W) -> (B, D, H, W)."""
        return CSPRep(2 * hidden, hidden, round(expansion * hidden), units)

    def down(self, hidden: int) -> nn.Module:
        """Return what halves a map: (B, D, H, W) -> (B, D, ceil(H/2), ceil(W/2))."""
        return ConvNorm(hidden, hidden, 3, 2, nn.SiLU())

    def join(self, one: Tensor, other: Tensor) -> Tensor:
        """Return two maps (B, D, H, W) as one for `fusion`."""
        return torch.cat((one, other), 1)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map [(B, Ci, Hi, Wi), ...], largest first, to [(B, D, Hi, Wi), ...]."""
        projected = [layer(x) for layer, x in zip(self.input_proj, maps, strict=True)]
        projected[-1] = self.encoder[0](projected[-1])
        return self._bottom_up(self._top_down(projected))

    def _top_down(self, maps: list[Tensor]) -> list[Tensor]:
        """Bring what small maps know to larger ones; what leaves a lateral convolution replaces the small map."""
        out = [maps[-1]]  # the smallest first
        for lower, lateral, block in zip(reversed(maps[:-1]), self.lateral_convs, self.fpn_blocks, strict=True):
            out[-1] = lateral(out[-1])
            # To the size of the lower map, which is twice as large or, when that is odd, one less.
            up = interpolate(out[-1], size=lower.shape[-2:], mode="nearest")
            out.append(block(self.join(up, lower)))
        return out[::-1]

    def _bottom_up(self, maps: list[Tensor]) -> list[Tensor]:
        """Bring what large maps know to smaller ones."""
        out = [maps[0]]
        for upper, down, block in zip(maps[1:], self.downsample_convs, self.pan_blocks, strict=True):
            out.append(block(self.join(down(out[-1]), upper)))
        return out
