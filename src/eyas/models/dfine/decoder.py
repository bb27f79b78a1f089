"""The decoder of D-FINE: boxes whose edges are distributions that every layer refines (spec detr 2.3, 2.4).

Legend: ``B`` images, ``N`` cells of all levels, ``Q`` queries, ``L`` layers, ``C`` classes, ``n`` bins of an edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eyas.models.rtdetr.anchors import inverse_sigmoid
from eyas.models.rtdetr.decoder import MLP, DecoderLayer, RTDETRDecoder
from eyas.nn import MSDeformAttn
from eyas.nn.deformable import at_least_float32
from eyas.nn.edges import BINS, bin_distances, expected_distances, move_edges
from eyas.types import FineBoxes

TOLD = 4  # most probable bins of an edge that tell how sure it is
FARTHEST = 10.0  # that a position code gets from 0


class Gateway(nn.Module):
    """Weigh what queries were against what they have seen, by both: (B, Q, width) twice -> (B, Q, width).

    ``norm`` is put on the sum; None for layer normalisation.
    """

    def __init__(self, width: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * width, 2 * width)
        self.norm = nn.LayerNorm(width) if norm is None else norm
        nn.init.zeros_(self.gate.weight)  # half of each at first
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Map (B, Q, width) and (B, Q, width) to (B, Q, width)."""
        keep, take = self.gate(torch.cat((x, seen), -1)).sigmoid().chunk(2, -1)
        return self.norm(keep * x + take * seen)


class GatedLayer(DecoderLayer):
    """A decoder layer whose look at the image passes a `Gateway`, and samples the image's cells as they are."""

    def __init__(self, width: int, heads: int, levels: int, points: int | Sequence[int], ffn: int, act: str) -> None:
        super().__init__(width, heads, levels, points, ffn, act)
        self.cross_attn = MSDeformAttn(width, levels, heads, points, project=False)
        self.gateway = Gateway(width)
        del self.norm2

    def take(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return queries (B, Q, width) with what they have seen (B, Q, width)."""
        return self.gateway(x, seen)


class EdgeConfidence(nn.Module):
    """How sure the edges of a box are, as something to add to its class logits: (..., 4 n) -> (..., 1); 0 at first."""

    def __init__(self, hidden: int = 64, act: str = "relu") -> None:
        super().__init__()
        self.reg_conf = MLP(4 * (TOLD + 1), hidden, 1, act=act)
        self.reg_conf.start_at_zero()

    def forward(self, edges: Tensor) -> Tensor:
        """Map logits (..., 4 n) of the bins to (..., 1)."""
        best = edges.unflatten(-1, (4, -1)).softmax(-1).topk(TOLD, -1).values  # (..., 4, TOLD)
        return self.reg_conf(torch.cat((best, best.mean(-1, keepdim=True)), -1).flatten(-2))


class DFineDecoder(RTDETRDecoder):
    """`RTDETRDecoder` whose first layer gives a box, and every layer corrects how its edges are distributed.

    Args:
        scale: reach of a correction: an edge's bins lie in sides of the box divided by this; 8 is for finer steps.

    The others are those of `RTDETRDecoder`. ``coded_once`` says whether queries keep the code of the place where they
    start; else each layer codes where they are by then.
    """

    coded_once: ClassVar[bool] = False
    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "box": ("enc_bbox_head", "dec_bbox_head", "pre_bbox_head", "decoder.lqe_layers"),
        "cls": ("enc_score_head", "dec_score_head", "denoising_class_embed"),
    }

    def __init__(self, channels: Sequence[int], *, scale: float = 4.0, **settings: Any) -> None:
        super().__init__(channels, **settings)
        hidden, layers = self.enc_score_head.in_features, len(self.dec_score_head)
        self.scale = float(scale)
        self.decoder.add_module("lqe_layers", nn.ModuleList(EdgeConfidence(act=self.act) for _ in range(layers)))
        self.pre_bbox_head = MLP(hidden, hidden, hidden, 4, act=self.act)
        self.pre_bbox_head.start_at_zero()

    def projection(self, c: int, hidden: int) -> nn.Module:
        """Return what brings a map of ``c`` channels to the decoder's width: nothing if it has it."""
        return nn.Identity() if c == hidden else super().projection(c, hidden)

    def layer(self, hidden: int, heads: int, points: int | Sequence[int], ffn: int) -> DecoderLayer:
        """Return one layer."""
        return GatedLayer(hidden, heads, self.nl, points, ffn, self.act)

    def box_head(self, layers: int, hidden: int) -> nn.ModuleList:
        """Return the box heads of all layers, each for the bins of four edges."""
        return nn.ModuleList(MLP(hidden, hidden, hidden, 4 * BINS, act=self.act) for _ in range(layers))

    def decode(
        self, x: Tensor, boxes: Tensor, memory: Tensor, shapes: list[tuple[int, int]], blocked: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor], FineBoxes | None]:
        """Return boxes and class logits, see `RTDETRDecoder.decode`, and where their edges may lie."""
        where, before = boxes, torch.zeros_like(x)
        position = self.position(boxes.to(x.dtype))
        all_boxes, all_scores, all_edges = [], [], []
        confidence: Any = self.decoder.lqe_layers
        heads = len(self.dec_bbox_head)  # 1 where all layers share it
        edges, distances = None, bin_distances(self.scale, device=boxes.device, dtype=boxes.dtype)
        for i, layer in enumerate(self.decoder.layers):
            if i and not self.coded_once:
                position = self.position(where.to(x.dtype))
            x = layer(x, position, where, memory, shapes, blocked)
            if edges is None:
                first_boxes = (at_least_float32(self.pre_bbox_head(x)) + inverse_sigmoid(where)).sigmoid()
                first_scores = self.dec_score_head[0](x)
                reference = first_boxes.detach()
                edges = at_least_float32(self.dec_bbox_head[0](x))
            else:
                edges = edges + at_least_float32(self.dec_bbox_head[i % heads](x + before))
            refined = move_edges(reference, expected_distances(edges, distances), self.scale)
            where, before = refined.detach(), x.detach()
            if self.training or i == self.eval_layer:
                all_boxes.append(refined)
                all_edges.append(edges)
                all_scores.append(self.dec_score_head[i](x) + confidence[i](edges.to(x.dtype)))
            if not self.training and i == self.eval_layer:
                break
        return all_boxes, all_scores, FineBoxes(torch.stack(all_edges), reference, first_boxes, first_scores)

    def position(self, boxes: Tensor) -> Tensor:
        """Return the code (B, Q, width) of places (B, Q, 4)."""
        return self.query_pos_head(boxes).clamp(-FARTHEST, FARTHEST)

    def detections(self, boxes: Tensor, logits: Tensor) -> Tensor:
        """Return the best detections (B, k, 6), see `RTDETRDecoder`; edges that passed each other leave no side."""
        return super().detections(torch.cat((boxes[..., :2], boxes[..., 2:].clamp(min=0)), -1), logits)
