"""The decoder of the RT-DETR family: it chooses cells of an image as queries and refines their boxes layer by layer.

One class serves the numbered tables (spec core C.4) and the official layout (spec detr 1.5); they differ in key names.

Legend: ``B`` images, ``N`` cells of all levels, ``Q`` queries, ``Qdn`` denoising queries (only while training),
``L`` layers, ``C`` classes.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, silu

from eyas.models.rtdetr.anchors import anchor_logits, inverse_sigmoid
from eyas.models.rtdetr.denoising import DenoisingQueries, denoising_queries
from eyas.models.table import shown
from eyas.nn import Fusable, MSDeformAttn
from eyas.nn.conv_norm import fold_norm, is_norm
from eyas.nn.deformable import at_least_float32
from eyas.nn.half import added
from eyas.nn.recomputed import Recomputed
from eyas.types import FineBoxes, SetPrediction

PRIOR = 0.01  # score of a fresh class output: nearly all queries are background
LEAST = {"queries": 1, "num_denoising": 0}  # smallest useful numbers of a table
POSITION_LAYERS = (2, 3)
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({"relu": relu, "silu": silu})
MOST = 10_000  # of either: queries look at each other, so twice as many cost four times as much


@dataclass(frozen=True)
class KeyNames:
    """What differs between state dicts of the family.

    Args:
        projection: names of convolution and normalisation of an input projection.
        encoder_output: names of linear layer and normalisation before the encoder's heads.
        padding_row: whether the label table has a last row for empty slots, which stays 0.
    """

    projection: tuple[str, str] = ("0", "1")
    encoder_output: tuple[str, str] = ("0", "1")
    padding_row: bool = False


NUMBERED = KeyNames()
OFFICIAL = KeyNames(projection=("conv", "norm"), encoder_output=("proj", "norm"), padding_row=True)


class MLP(nn.Module):
    """Linear layers ``layers.0`` ... with ``act`` between them: (..., widths[0]) -> (..., widths[-1])."""

    def __init__(self, *widths: int, act: str = "relu") -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.act = ACTIVATIONS[act]

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., widths[0]) to (..., widths[-1])."""
        for layer in self.layers[:-1]:
            x = self.act(layer(x))
        return self.layers[-1](x)

    def start_at_zero(self) -> None:
        """Make the output 0 until training changes it."""
        last: Any = self.layers[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


class BoxState(NamedTuple):
    """What a box head hands from layer to layer: boxes (B, Q, 4) cx cy w h in [0, 1]."""

    reference: Tensor  # without gradient: where the next layer looks
    refined: Tensor | None = None  # the same with gradient; None before the first layer


class DeltaBox(nn.ModuleList):
    """Box head that adds a change to the logits of the last box, one `MLP` for each layer.

    "Look forward twice" (Zhang et al., 2022): what is supervised at a layer starts from the box of the layer before
    with its gradient, so that box is taught by two layers; where a layer looks carries no gradient.
    """

    def __init__(self, layers: int, width: int, act: str = "relu") -> None:
        super().__init__(MLP(width, width, width, 4, act=act) for _ in range(layers))

    def step(self, i: int, x: Tensor, state: BoxState) -> tuple[Tensor, BoxState]:
        """Return the boxes (B, Q, 4) of layer ``i`` with queries ``x`` (B, Q, width), and what the next one needs."""
        delta = at_least_float32(self[i](x))
        refined = (delta + inverse_sigmoid(state.reference)).sigmoid()
        if state.refined is None or not self.training:
            boxes = refined
        else:
            boxes = (delta + inverse_sigmoid(state.refined)).sigmoid()
        return boxes, BoxState(refined.detach(), refined)


class DecoderLayer(Recomputed):
    """Queries look at each other, at the image, and think: each step is added and normalised (post-norm).

    A layer of another kind overrides `take` and `change`, and names in ``thinking`` the linear layers of the latter.
    """

    thinking: ClassVar[tuple[str, ...]] = ("linear1", "linear2")

    def __init__(
        self, width: int, heads: int, levels: int, points: int | Sequence[int], ffn: int, act: str = "relu"
    ) -> None:
        super().__init__()
        self.act = ACTIVATIONS[act]
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = MSDeformAttn(width, levels, heads, points)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        boxes: Tensor,
        memory: Tensor,
        shapes: Sequence[tuple[int, int]],
        blocked: Tensor | None,
    ) -> Tensor:
        """Map queries (B, Q, width), with their ``position`` code and ``boxes`` (B, Q, 4), to (B, Q, width).

        ``memory`` (B, N, width) holds the levels of ``shapes``; ``blocked`` (Q, Q) is True where a query must not
        look.
        """
        where = x + position
        x = self.norm1(x + self.self_attn(where, where, x, attn_mask=blocked, need_weights=False)[0])
        return self.think(self.take(x, self.cross_attn(x + position, boxes, memory, shapes)))

    def take(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return queries (B, Q, width) with what they have seen (B, Q, width)."""
        return self.norm2(x + seen)

    def change(self, x: Tensor) -> Tensor:
        """Return what queries (B, Q, width) make of themselves, to be added."""
        return self.linear2(self.act(self.linear1(x)))

    def think(self, x: Tensor) -> Tensor:
        """Map queries (B, Q, width) to (B, Q, width), each by itself."""
        return self.norm3(added(x, self.change(x)))


class DecoderStack(nn.Module):
    """``layers`` decoder layers that start as copies of one."""

    def __init__(self, layer: nn.Module, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(count))


class RTDETRDecoder(Fusable):
    """From feature maps to a set of boxes, without anchors to assign and without NMS.

    Args:
        channels: of the maps, largest map first.
        nc: classes.
        hidden: width of everything inside.
        queries: boxes of an image; fewer if the maps have fewer cells.
        points: samples of a head on each level, one number or one for each level.
        heads: attention heads.
        layers: decoder layers.
        ffn: inner width of a layer's network.
        num_denoising: denoising queries of an image while training, about; 0 for none.
        label_noise: half of this share of denoising labels is wrong.
        box_noise: how far corners of denoising boxes move, as a share of half the side.
        eval_layer: the layer whose boxes inference gives; later ones are skipped then. -1 is the last.
        act: "relu" or "silu", inside the layers and the small networks around them.
        position_layers: layers of the network that codes where a box is, 2 or 3; the inner width of two is twice as
            large.
        names: what the parameters are called.

    A decoder of another kind overrides what its parts are made of: `projection`, `output`, `layer`, `box_head`,
    `decode`.

    Attributes:
        max_det: most detections of an image.
        agnostic_nms: give only the best class of every query.

    Raises:
        ValueError: sizes that do not fit each other, or are too small.
    """

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "box": ("enc_bbox_head", "dec_bbox_head"),
        "cls": ("enc_score_head", "dec_score_head", "denoising_class_embed"),
    }
    has_one2one = True
    end2end = True

    def __init__(
        self,
        channels: Sequence[int],
        *,
        nc: int = 80,
        hidden: int = 256,
        queries: int = 300,
        points: int | Sequence[int] = 4,
        heads: int = 8,
        layers: int = 6,
        ffn: int = 1024,
        num_denoising: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
        eval_layer: int = -1,
        act: str = "relu",
        position_layers: int = 2,
        names: KeyNames = NUMBERED,
    ) -> None:
        super().__init__()
        check_counts({"queries": queries, "num_denoising": num_denoising})
        if type(eval_layer) is not int or not -layers <= eval_layer < layers:
            raise ValueError(f"eval_layer is {shown(eval_layer)}, and there are layers 0 to {layers - 1}")
        if hidden % heads:
            raise ValueError(f"{hidden} channels cannot be shared by {heads} heads: choose a divisor of {hidden}")
        if position_layers not in POSITION_LAYERS:
            raise ValueError(f"position_layers is {shown(position_layers)}, and must be 2 or 3")
        self.nc = nc
        self.nl = len(channels)
        self.num_queries = queries
        self.num_denoising = num_denoising
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.eval_layer = eval_layer % layers
        self.max_det = queries
        self.agnostic_nms = False
        self.act = act
        self.names = names
        self.input_proj = nn.ModuleList(self.projection(c, hidden) for c in channels)
        self.decoder = DecoderStack(self.layer(hidden, heads, points, ffn), layers)
        rows = nc + 1 if names.padding_row else nc
        self.denoising_class_embed = nn.Embedding(rows, hidden, padding_idx=nc if names.padding_row else None)
        inner = (2 * hidden,) if position_layers == 2 else (hidden,) * (position_layers - 1)
        self.query_pos_head = MLP(4, *inner, hidden, act=act)
        self.enc_output = self.output(hidden)
        self.enc_score_head = nn.Linear(hidden, nc)
        self.enc_bbox_head = MLP(hidden, hidden, hidden, 4, act=act)
        self.dec_score_head = nn.ModuleList(nn.Linear(hidden, nc) for _ in range(layers))
        self.dec_bbox_head = self.box_head(layers, hidden)
        self.reset_parameters()

    def projection(self, c: int, hidden: int) -> nn.Module:
        """Return what brings a map of ``c`` channels to the decoder's width."""
        return _named(self.names.projection, nn.Conv2d(c, hidden, 1, bias=False), nn.BatchNorm2d(hidden))

    def output(self, hidden: int) -> nn.Module:
        """Return what cells pass before queries are chosen among them: (B, N, hidden) -> (B, N, hidden)."""
        return _named(self.names.encoder_output, nn.Linear(hidden, hidden), nn.LayerNorm(hidden))

    def layer(self, hidden: int, heads: int, points: int | Sequence[int], ffn: int) -> DecoderLayer:
        """Return one layer."""
        return DecoderLayer(hidden, heads, self.nl, points, ffn, self.act)

    def box_head(self, layers: int, hidden: int) -> Any:
        """Return the box heads of all layers."""
        return DeltaBox(layers, hidden, self.act)

    def reset_parameters(self) -> None:
        """Start with boxes that stay where they are, and with scores that say background."""
        for mlp in (self.enc_bbox_head, *self.dec_bbox_head):
            mlp.start_at_zero()
        for part in (self.enc_output, self.query_pos_head, self.input_proj):
            for layer in part.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    nn.init.xavier_uniform_(layer.weight)
        self.init_biases()

    def init_biases(self, imgsz: int = 640) -> None:
        """Set all class outputs to a score of 0.01, whatever the number of classes and the image size."""
        for layer in (self.enc_score_head, *self.dec_score_head):
            nn.init.constant_(layer.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, maps: Sequence[Tensor], batch: Mapping[str, Any] | None = None) -> Any:
        """Return a `SetPrediction` while training, else (detections, `SetPrediction` of one layer).

        Args:
            maps: (B, c, H, W) of every level, largest first.
            batch: what `denoising_queries` needs; only used while training. None: no denoising.

        Returns:
            Detections are (B, k, 6) cx cy w h in [0, 1], score, class; best first, k = min(max_det, Q C).
        """
        memory, shapes = self._memory(maps)
        content, reference, enc_boxes, enc_scores = self._choose(memory, shapes)
        noisy = self._denoising(batch, content)
        blocked = None
        if noisy is not None:
            content = torch.cat((noisy.content.to(content.dtype), content), 1)
            reference = torch.cat((noisy.boxes, reference), 1)
            blocked = noisy.blocked
        elif self.training:
            # Every process must give this parameter a gradient, whether or not its images have objects.
            content = content + 0 * self.denoising_class_embed.weight.sum()
        boxes, scores, fine = self.decode(content, reference.sigmoid(), memory, shapes, blocked)
        meta = None if noisy is None else noisy.meta
        prediction = SetPrediction(torch.stack(boxes), torch.stack(scores), enc_boxes, enc_scores, meta, fine)
        return prediction if self.training else (self.detections(boxes[-1], scores[-1]), prediction)

    def _memory(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Return all cells (B, N, hidden), and height and width of every level."""
        projected = [layer(m) for layer, m in zip(self.input_proj, maps, strict=True)]
        shapes = [(m.shape[2], m.shape[3]) for m in projected]
        return torch.cat([m.flatten(2).transpose(1, 2) for m in projected], 1), shapes

    def _choose(self, memory: Tensor, shapes: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the best cells as queries: content and box logits, detached; and boxes and scores to be taught."""
        anchors, valid = anchor_logits(shapes, device=memory.device, dtype=at_least_float32(memory[:0]).dtype)
        features = self.enc_output(memory * valid.to(memory.dtype))  # (B, N, hidden)
        scores = self.enc_score_head(features)
        count = min(self.num_queries, features.shape[1])
        cell = scores.detach().amax(-1).topk(count, dim=1).indices[..., None]  # (B, Q, 1)
        chosen = features.gather(1, cell.expand(-1, -1, features.shape[-1]))
        start = anchors.expand(memory.shape[0], -1, -1).gather(1, cell.expand(-1, -1, 4))
        logits = at_least_float32(self.enc_bbox_head(chosen)) + start
        scores = scores.gather(1, cell.expand(-1, -1, self.nc))
        return chosen.detach(), logits.detach(), logits.sigmoid(), scores

    def _denoising(self, batch: Mapping[str, Any] | None, content: Tensor) -> DenoisingQueries | None:
        if not self.training or batch is None or self.num_denoising <= 0:
            return None
        return denoising_queries(
            batch,
            self.denoising_class_embed.weight,
            images=content.shape[0],
            queries=content.shape[1],
            nc=self.nc,
            budget=self.num_denoising,
            label_noise=self.label_noise,
            box_noise=self.box_noise,
        )

    def decode(
        self, x: Tensor, boxes: Tensor, memory: Tensor, shapes: list[tuple[int, int]], blocked: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor], FineBoxes | None]:
        """Return boxes (B, Q, 4) and class logits (B, Q, C): of every layer while training, else of one.

        Third, what a head that predicts distributions tells besides; here None.

        Args:
            x: content of the queries (B, Q, width).
            boxes: where they start (B, Q, 4) cx cy w h in [0, 1].
            memory: cells of the image (B, N, width), the levels of ``shapes`` one after the other.
            shapes: (height, width) of every level.
            blocked: (Q, Q) bool, True where a query must not look.
        """
        state = BoxState(boxes)
        all_boxes, all_scores = [], []
        for i, layer in enumerate(self.decoder.layers):
            position = self.query_pos_head(state.reference.to(x.dtype))
            x = layer(x, position, state.reference, memory, shapes, blocked)
            boxes, state = self.dec_bbox_head.step(i, x, state)
            if self.training or i == self.eval_layer:
                all_boxes.append(boxes)
                all_scores.append(self.dec_score_head[i](x))
            if not self.training and i == self.eval_layer:
                break
        return all_boxes, all_scores, None

    def detections(self, boxes: Tensor, logits: Tensor) -> Tensor:
        """Return the best detections (B, k, 6) cx cy w h score class of boxes (B, Q, 4) and logits (B, Q, C)."""
        scores = at_least_float32(logits).sigmoid()
        if self.agnostic_nms:
            best, label = scores.max(-1)
            score, query = best.topk(min(self.max_det, best.shape[1]))
            label = label.gather(1, query)
        else:
            flat = scores.flatten(1)
            score, place = flat.topk(min(self.max_det, flat.shape[1]))
            query, label = place // self.nc, place % self.nc
        chosen = boxes.gather(1, query[..., None].expand(-1, -1, 4))
        return torch.cat((chosen, score[..., None], label[..., None].to(score.dtype)), -1)

    def fuse(self) -> None:
        """Fold the normalisation of the input projections, for inference only; does nothing the second time."""
        first, second = self.names.projection
        for projection in self.input_proj:
            if isinstance(projection, nn.Identity):
                continue
            conv: Any = projection.get_submodule(first)
            norm = projection.get_submodule(second)
            if is_norm(norm):
                projection.set_submodule(first, fold_norm(conv, norm))
                projection.set_submodule(second, nn.Identity())


def check_counts(settings: Mapping[str, Any]) -> None:
    """Check the settings among these that count queries.

    Raises:
        ValueError: one is no whole number, too small or too large.
    """
    for key, least in LEAST.items():
        value = settings.get(key, least)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST:
            raise ValueError(
                f"{key} is {shown(value)}, and must be a whole number of at least {least}, at most {MOST:,}"
            )


def _named(names: tuple[str, ...], *layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(zip(names, layers, strict=True)))
