"""The decoder of DINO: cells give the first boxes of learnt queries, which it refines (spec detr 5.1, detr-more 2.2).

Of RT-DETR's it differs in queries that are learnt and not taken from the cells, in the code that tells them where their
boxes are, in a normalisation before the output heads, and in that it sees the image alone where inputs are padded.

Legend: ``B`` images, ``N`` cells of all levels, ``Q`` queries, denoising ones first while training, ``L`` layers, ``C``
classes, ``D`` hidden width.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from eyas.models.encoders.deformable import added
from eyas.models.encoders.padding import Cells, into_frame, out_of_frame
from eyas.models.postprocess import topk_detections
from eyas.models.rtdetr.anchors import MARGIN, SIZE, inverse_sigmoid
from eyas.models.rtdetr.decoder import MLP, PRIOR, check_counts
from eyas.models.rtdetr.denoising import DenoisingQueries, denoising_queries
from eyas.nn.deformable import at_least_float32
from eyas.nn.masked_deformable import MaskedDeformAttn
from eyas.nn.recomputed import Recomputed
from eyas.nn.waves import box_code
from eyas.types import SetPrediction

MAX_DET = 300  # detections of an image, of more queries


class DecoderLayer(Recomputed):
    """Queries look at each other, at the image, and think: each step is added and normalised (post-norm)."""

    def __init__(self, width: int, heads: int, levels: int, points: int, ffn: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = MaskedDeformAttn(width, levels, heads, points)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.norm3 = nn.LayerNorm(width)
        for layer in (self.linear1, self.linear2, self.self_attn.out_proj):
            nn.init.xavier_uniform_(layer.weight)

    def forward(
        self, x: Tensor, position: Tensor, places: Tensor, memory: Tensor, cells: Cells, blocked: Tensor | None
    ) -> Tensor:
        """Map queries (B, Q, D), with their ``position`` code and ``places`` (B, Q, levels, 4), to (B, Q, D).

        ``memory`` (B, N, D) holds ``cells``; ``blocked`` (Q, Q) is True where a query must not look.
        """
        where = x + position
        x = self.norm1(x + self.self_attn(where, where, x, attn_mask=blocked, need_weights=False)[0])
        x = self.norm2(x + self.cross_attn(x + position, places, memory, cells.shapes, cells.padded))
        return self.norm3(added(x, self.linear2(relu(self.linear1(x)))))


class DINODecoder(nn.Module):
    """From cells to a set of boxes, without anchors to assign and without NMS.

    Args:
        levels: of the cells.
        nc: classes.
        hidden: D.
        queries: boxes of an image; fewer if there are fewer cells.
        points: samples of a head on each level.
        heads: attention heads.
        layers: decoder layers.
        ffn: inner width of a layer's network.
        num_denoising: denoising queries of an image while training, about; 0 for none.
        label_noise: half of this share of denoising labels is wrong.
        box_noise: how far corners of denoising boxes move, as a share of half the side.
        shared_heads: whether all layers have the same class and box outputs.
        spare_labels: rows of the label table beyond the classes, which nothing reads.

    Attributes:
        max_det: most detections of an image.
        agnostic_nms: give only the best class of every query.
    """

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "box": ("enc_bbox_head", "dec_bbox_head"),
        "cls": ("enc_score_head", "dec_score_head", "denoising_class_embed"),
    }
    has_one2one = True
    end2end = True

    def __init__(
        self,
        levels: int = 4,
        *,
        nc: int = 80,
        hidden: int = 256,
        queries: int = 900,
        points: int = 4,
        heads: int = 8,
        layers: int = 6,
        ffn: int = 2048,
        num_denoising: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
        shared_heads: bool = False,
        spare_labels: int = 0,
    ) -> None:
        super().__init__()
        check_counts({"queries": queries, "num_denoising": num_denoising})
        self.nc = nc
        self.nl = levels
        self.hidden = hidden
        self.num_queries = queries
        self.num_denoising = num_denoising
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.max_det = MAX_DET
        self.agnostic_nms = False
        self.layers = nn.ModuleList(DecoderLayer(hidden, heads, levels, points, ffn) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.query_content = nn.Embedding(queries, hidden)
        self.query_pos_head = MLP(2 * hidden, hidden, hidden)
        self.denoising_class_embed = nn.Embedding(nc + spare_labels, hidden)
        self.enc_output = nn.Sequential(OrderedDict(proj=nn.Linear(hidden, hidden), norm=nn.LayerNorm(hidden)))
        self.enc_score_head = nn.Linear(hidden, nc)
        self.enc_bbox_head = MLP(hidden, hidden, hidden, 4)
        sets = 1 if shared_heads else layers
        self.dec_score_head = nn.ModuleList(nn.Linear(hidden, nc) for _ in range(sets))
        self.dec_bbox_head = nn.ModuleList(MLP(hidden, hidden, hidden, 4) for _ in range(sets))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with boxes that stay where they are, and with scores that say background."""
        boxes: Any = self.dec_bbox_head
        for mlp in (self.enc_bbox_head, *boxes):
            mlp.start_at_zero()
        linear: Any = (self.enc_output[0], *self.query_pos_head.layers)
        for layer in linear:
            nn.init.xavier_uniform_(layer.weight)
        self.init_biases()

    def init_biases(self, imgsz: int = 640) -> None:
        """Set all class outputs to a score of 0.01, whatever the number of classes and the image size."""
        heads: Any = (self.enc_score_head, *self.dec_score_head)
        for layer in heads:
            nn.init.constant_(layer.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(
        self, memory: Tensor, cells: Cells, frame: Tensor, batch: Mapping[str, Any] | None = None
    ) -> tuple[Tensor, SetPrediction] | SetPrediction:
        """Return a `SetPrediction` while training, else (detections, `SetPrediction` of the last layer).

        Inside, boxes are shares of the image; what goes in and comes out are shares of the input.

        Args:
            memory: (B, N, D), what the encoder makes of the cells.
            cells: where they lie.
            frame: (B, 4) x y w h of the image in shares of the input.
            batch: what `denoising_queries` needs; only used while training. None: no denoising.

        Returns:
            Detections are (B, k, 6) cx cy w h in [0, 1], score, class; best first, k = min(max_det, Q).
        """
        frame = frame[:, None]
        reference, enc_boxes, enc_scores = self._choose(memory, cells)
        content = self.query_content.weight[: reference.shape[1]].expand(memory.shape[0], -1, -1)
        noisy = self._denoising(batch, frame, content)
        blocked = None
        if noisy is not None:
            content = torch.cat((noisy.content.to(content.dtype), content), 1)
            reference = torch.cat((noisy.boxes.sigmoid(), reference), 1)
            blocked = noisy.blocked
        elif self.training:
            # Every process must give this parameter a gradient, whether or not its images have objects.
            content = content + 0 * self.denoising_class_embed.weight.sum()
        boxes, scores = self._decode(content.to(memory.dtype), reference, memory, cells, blocked)
        meta = None if noisy is None else noisy.meta
        boxes, enc_boxes = out_of_frame(boxes, frame), out_of_frame(enc_boxes, frame)
        prediction = SetPrediction(boxes, scores, enc_boxes, enc_scores, meta)
        return prediction if self.training else (self.detections(boxes[-1], scores[-1]), prediction)

    def _choose(self, memory: Tensor, cells: Cells) -> tuple[Tensor, Tensor, Tensor]:
        """Return the boxes of the best cells, detached; and boxes and scores (B, Q, ...) to be taught."""
        start, valid = proposals(cells)
        features = self.enc_output(memory * valid.to(memory.dtype))
        scores = self.enc_score_head(features)
        count = min(self.num_queries, features.shape[1])
        cell = scores.detach().amax(-1).topk(count, dim=1).indices[..., None]  # (B, Q, 1)
        chosen = features.gather(1, cell.expand(-1, -1, self.hidden))
        logits = at_least_float32(self.enc_bbox_head(chosen)) + start.gather(1, cell.expand(-1, -1, 4))
        boxes = logits.sigmoid()
        return boxes.detach(), boxes, scores.gather(1, cell.expand(-1, -1, self.nc))

    def _denoising(self, batch: Mapping[str, Any] | None, frame: Tensor, content: Tensor) -> DenoisingQueries | None:
        """Return the denoising queries of objects, whose boxes become shares of the image: ``frame`` is (B, 1, 4)."""
        if not self.training or batch is None or self.num_denoising <= 0:
            return None
        own = frame[batch["batch_idx"].to(frame.device, torch.int64).view(-1), 0]
        boxes = into_frame(batch["bboxes"].to(frame.device, frame.dtype), own)
        return denoising_queries(
            {**batch, "bboxes": boxes},
            self.denoising_class_embed.weight,
            images=content.shape[0],
            queries=content.shape[1],
            nc=self.nc,
            budget=self.num_denoising,
            label_noise=self.label_noise,
            box_noise=self.box_noise,
        )

    def _decode(
        self, x: Tensor, boxes: Tensor, memory: Tensor, cells: Cells, blocked: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return boxes (L, B, Q, 4) in shares of the image and class logits (L, B, Q, C); in evaluation L is 1.

        "Look forward twice" (Zhang et al., 2022): what is supervised at a layer starts from the box of the layer before
        with its gradient; where a layer looks carries none. What leaves a layer is normalised for the outputs alone.
        """
        all_boxes, all_scores = [], []
        taught = boxes  # what the box of this layer starts from
        for i, layer in enumerate(self.layers):
            places = out_of_frame(boxes[:, :, None], cells.frames[:, None])  # (B, Q, levels, 4)
            position = self.query_pos_head(box_code(places[:, :, 0], self.hidden // 2).to(x.dtype))
            x = layer(x, position, places.to(x.dtype), memory, cells, blocked)
            score_head, bbox_head = (heads[i % len(heads)] for heads in (self.dec_score_head, self.dec_bbox_head))
            if self.training or i == len(self.layers) - 1:
                output = self.norm(x)
                all_boxes.append((at_least_float32(bbox_head(output)) + inverse_sigmoid(taught)).sigmoid())
                all_scores.append(score_head(output))
            if i < len(self.layers) - 1:
                taught = (at_least_float32(bbox_head(x)) + inverse_sigmoid(boxes)).sigmoid()
                boxes = taught.detach()
        return torch.stack(all_boxes), torch.stack(all_scores)

    def detections(self, boxes: Tensor, logits: Tensor) -> Tensor:
        """Return the best detections (B, k, 6) cx cy w h score class of boxes (B, Q, 4) and logits (B, Q, C)."""
        scores = at_least_float32(logits).sigmoid()
        return topk_detections(boxes, scores, self.max_det, agnostic=self.agnostic_nms)


def proposals(cells: Cells) -> tuple[Tensor, Tensor]:
    """Return the logits (B, N, 4) of a square box in the middle of every cell, and which cells have one (B, N, 1).

    A side is 0.05 of the image on the first level and doubles from level to level. Boxes too near to the border of the
    image, or in padding, are infinite.
    """
    sizes = [cells.points.new_full((h * w,), SIZE * 2**level) for level, (h, w) in enumerate(cells.shapes)]
    size = torch.cat(sizes)[None, :, None].expand(cells.points.shape[0], -1, 2)
    boxes = torch.cat((cells.points, size), -1)
    valid = ((boxes > MARGIN) & (boxes < 1 - MARGIN)).all(-1, keepdim=True) & ~cells.padded[..., None]
    return boxes.logit().masked_fill(~valid, torch.inf), valid
