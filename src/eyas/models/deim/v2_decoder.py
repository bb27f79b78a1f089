"""The decoders of DEIMv2 and ECDet: D-FINE's, made cheaper (spec detr 4.3, detr-more 8).

Cells are chosen by what they are, without a projection before; where queries start is coded once. DEIMv2 normalises by
the root of the mean square and gates what queries think; its smallest members do not gate what queries see, and have
one box head for all layers.

Legend: ``B`` images, ``Q`` queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from eyas.models.dfine.decoder import DFineDecoder, Gateway
from eyas.models.rtdetr.decoder import DecoderLayer
from eyas.nn import MSDeformAttn
from eyas.nn.root_norm import RMSNorm
from eyas.nn.vit import SwiGLU


class LiteLayer(DecoderLayer):
    """A decoder layer with `RMSNorm`, gated thinking, and cells of the image as they are; ``ffn`` is two halves."""

    thinking: ClassVar[tuple[str, ...]] = ("swish_ffn.w12", "swish_ffn.w3")

    def __init__(self, width: int, heads: int, levels: int, points: int | Sequence[int], ffn: int, act: str) -> None:
        super().__init__(width, heads, levels, points, ffn, act)
        del self.linear1, self.linear2
        self.cross_attn = MSDeformAttn(width, levels, heads, points, project=False)
        self.swish_ffn = SwiGLU(width, ffn // 2)
        for name in ("norm1", "norm2", "norm3"):
            self.add_module(name, RMSNorm(width))

    def change(self, x: Tensor) -> Tensor:
        """Return what queries (B, Q, width) make of themselves, to be added."""
        return self.swish_ffn(x)


class RootLayer(LiteLayer):
    """`LiteLayer` whose look at the image passes a `Gateway`."""

    def __init__(self, width: int, heads: int, levels: int, points: int | Sequence[int], ffn: int, act: str) -> None:
        super().__init__(width, heads, levels, points, ffn, act)
        self.gateway = Gateway(width, RMSNorm(width))
        del self.norm2

    def take(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return queries (B, Q, width) with what they have seen (B, Q, width)."""
        return self.gateway(x, seen)


class DirectDecoder(DFineDecoder):
    """`DFineDecoder` that chooses among the cells as they are, and codes where queries start once: that of ECDet."""

    coded_once: ClassVar[bool] = True

    def output(self, hidden: int) -> nn.Module:
        """Return what cells pass before queries are chosen among them: nothing."""
        return nn.Identity()


class RootDecoder(DirectDecoder):
    """`DirectDecoder` of `RootLayer`: that of DEIMv2."""

    def layer(self, hidden: int, heads: int, points: int | Sequence[int], ffn: int) -> DecoderLayer:
        """Return one layer."""
        return RootLayer(hidden, heads, self.nl, points, ffn, self.act)


class LiteDecoder(DirectDecoder):
    """`DirectDecoder` of `LiteLayer`, with one box head for all layers."""

    def layer(self, hidden: int, heads: int, points: int | Sequence[int], ffn: int) -> DecoderLayer:
        """Return one layer."""
        return LiteLayer(hidden, heads, self.nl, points, ffn, self.act)

    def box_head(self, layers: int, hidden: int) -> nn.ModuleList:
        """Return the box head, for the bins of four edges."""
        return super().box_head(1, hidden)
