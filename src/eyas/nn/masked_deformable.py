"""Deformable attention over maps of which only a part is image: references for each level, and cells that are not seen.

Legend: ``B`` images, ``Q`` queries, ``N`` positions of all levels, ``h`` heads, ``L`` levels, ``P`` points of a level.
"""

from __future__ import annotations

from torch import Tensor

from eyas.nn.constants import constants
from eyas.nn.deformable import MSDeformAttn, Shapes, deformable_sample


class MaskedDeformAttn(MSDeformAttn):
    """`MSDeformAttn` whose queries look at a place of their own on each level, and never at padding.

    Every level has equally many points. Arguments are those of `MSDeformAttn`, as are the state-dict keys.
    """

    def forward(
        self, query: Tensor, boxes: Tensor, memory: Tensor, shapes: Shapes, padded: Tensor | None = None
    ) -> Tensor:
        """Map queries (B, Q, dim) to (B, Q, dim).

        Args:
            query: (B, Q, dim).
            boxes: (B, Q, L, 4) cx cy w h, or (B, Q, L, 2) x y, in shares of each map. An offset of P reaches half a
                box; without boxes, an offset is a number of cells.
            memory: (B, N, dim), levels one after the other.
            shapes: height and width of every level; their products sum to N.
            padded: (B, N) bool, True where the memory is not to be seen.
        """
        batch, queries, _ = query.shape
        levels = len(shapes)
        offsets = self.sampling_offsets(query).view(batch, queries, self.heads, levels, -1, 2)
        weights = self.attention_weights(query).view(batch, queries, self.heads, -1).softmax(-1)
        value = self.value_proj(memory)
        if padded is not None:
            value = value.masked_fill(padded[..., None], 0)
        boxes = boxes[:, :, None, :, None]  # (B, Q, 1, L, 1, 2 or 4)
        if boxes.shape[-1] == 4:
            reach = boxes[..., 2:] * (0.5 / self.points[0])
        else:
            reach = constants([1 / cells for h, w in shapes for cells in (w, h)], boxes).view(levels, 1, 2)
        locations = (boxes[..., :2] + offsets * reach).flatten(3, 4)
        value = value.view(batch, memory.shape[1], self.heads, -1)
        return self.output_proj(deformable_sample(value, shapes, locations, weights, self.points))
