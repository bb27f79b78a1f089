"""The encoder of DINO: all cells of all maps look at a few points of all maps (spec detr 5.1, detr-more 2.2).

Legend: ``B`` images, ``D`` hidden width, ``N`` cells of all maps, ``L`` maps. Sub-module names are state-dict keys.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from eyas.models.encoders.padding import Cells, Lines, cells_of, lines_of_map
from eyas.nn.half import added
from eyas.nn.masked_deformable import MaskedDeformAttn
from eyas.nn.recomputed import Recomputed
from eyas.nn.waves import map_code

GROUPS = 32  # of the normalisation of a projected map


class DeformableLayer(Recomputed):
    """Deformable attention of cells to cells and a network of two layers, each followed by its normalisation."""

    def __init__(self, hidden: int, levels: int, heads: int, points: int, ffn: int) -> None:
        super().__init__()
        self.self_attn = MaskedDeformAttn(hidden, levels, heads, points)
        self.norm1 = nn.LayerNorm(hidden)
        self.linear1 = nn.Linear(hidden, ffn)
        self.linear2 = nn.Linear(ffn, hidden)
        self.norm2 = nn.LayerNorm(hidden)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor, code: Tensor, places: Tensor, cells: Cells) -> Tensor:
        """Map cells (B, N, D) to (B, N, D).

        ``code`` (B, N, D) tells queries where they are; ``places`` (B, N, L, 2) are the same in shares of each map.
        """
        x = self.norm1(x + self.self_attn(x + code, places, x, cells.shapes, cells.padded))
        return self.norm2(added(x, self.linear2(relu(self.linear1(x)))))


class DeformableEncoder(nn.Module):
    """Bring maps to one width, add a smaller one, and let all cells attend to all maps.

    Args:
        channels: of the maps, from the largest map to the smallest.
        hidden: D.
        layers: of attention, each with ``heads``, ``points`` on every map and an inner width of ``ffn``.
        temperature: ratio of the longest to the shortest wave length of the position code, almost.
        offset: added to the count of rows and columns from 1 in that code.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        hidden: int = 256,
        layers: int = 6,
        heads: int = 8,
        points: int = 4,
        ffn: int = 2048,
        temperature: float = 10_000.0,
        offset: float = -0.5,
    ) -> None:
        super().__init__()
        self.hidden, self.temperature, self.offset = hidden, temperature, offset
        self.levels = len(channels) + 1
        smaller = _projection(nn.Conv2d(channels[-1], hidden, 3, 2, 1))
        self.input_proj = nn.ModuleList([*(_projection(nn.Conv2d(c, hidden, 1)) for c in channels), smaller])
        self.level_embed = nn.Parameter(torch.randn(self.levels, hidden))
        self.layers = nn.ModuleList(DeformableLayer(hidden, self.levels, heads, points, ffn) for _ in range(layers))

    def forward(self, maps: Sequence[Tensor], image: Lines) -> tuple[Tensor, Cells]:
        """Return all cells (B, N, D) of maps [(B, Ci, Hi, Wi), ...], largest first, and where they lie.

        ``image`` tells which rows and columns of the input are no padding.
        """
        return self.attend([layer(x) for layer, x in zip(self.input_proj, (*maps, maps[-1]), strict=True)], image)

    def attend(self, maps: Sequence[Tensor], image: Lines) -> tuple[Tensor, Cells]:
        """Return all cells (B, N, D) of maps [(B, D, Hi, Wi), ...], and where they lie; padding reaches none."""
        levels = [lines_of_map(image, (x.shape[2], x.shape[3])) for x in maps]
        cells = cells_of(levels)
        code = torch.cat([self.code(level) + own for level, own in zip(levels, self.level_embed, strict=True)], 1)
        # A place in the image is another share of each map: the last cells of small maps lie partly outside.
        places = cells.frames[:, None, :, :2] + cells.points[:, :, None] * cells.frames[:, None, :, 2:]
        x = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)
        code = code.to(x.dtype)
        for layer in self.layers:
            x = layer(x, code, places, cells)
        return x, cells

    def code(self, level: Lines) -> Tensor:
        """Return the position code (B, h * w, D) of a map."""
        return map_code(*level, self.hidden, temperature=self.temperature, offset=self.offset)


def _projection(conv: nn.Conv2d) -> nn.Sequential:
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.GroupNorm(GROUPS, conv.out_channels)))
