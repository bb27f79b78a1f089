"""`RTDETRDetectionModel`: RT-DETR built from a table of numbered layers (spec core A.7, C.3, C.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eyas.models.graph import Built, Layer, LayerContext
from eyas.models.graph_detector import GraphDetector
from eyas.models.rtdetr.base import STRIDE, SetDetector
from eyas.models.rtdetr.decoder import RTDETRDecoder


def rtdetr_decoder(
    ctx: LayerContext,
    nc: int | str = "nc",
    hidden: int = 256,
    queries: int = 300,
    points: int | Sequence[int] = 4,
    heads: int = 8,
    layers: int = 6,
    ffn: int = 1024,
    dropout: float = 0.0,
    act: str = "relu",
    eval_layer: int = -1,
    num_denoising: int = 100,
    label_noise: float = 0.5,
    box_noise: float = 1.0,
    learned_queries: bool = False,
) -> Built:
    """Build the head, every setting by position; those we have no other value for may only be repeated."""
    if dropout or learned_queries or act not in ("relu", "nn.ReLU", "nn.ReLU()"):
        raise ValueError("dropout must be 0, the activation relu and learned queries off: there are no others here")
    head = RTDETRDecoder(
        ctx.inputs,
        nc=ctx.classes("RTDETRDecoder", nc),
        hidden=hidden,
        queries=queries,
        points=points,
        heads=heads,
        layers=layers,
        ffn=ffn,
        num_denoising=num_denoising,
        label_noise=label_noise,
        box_noise=box_noise,
        eval_layer=eval_layer,
    )
    return head, 0


class RTDETRDetectionModel(SetDetector, GraphDetector):
    """A set detector built from a table of numbered layers, whose last is `RTDETRDecoder`.

    The class loss has the constants that this layout is known with, 0.25 and 1.5; its weight carries no gradient, as
    in the paper (spec core I.23).
    """

    head_layer: ClassVar[str] = "RTDETRDecoder"
    layers: ClassVar[Mapping[str, Layer]] = MappingProxyType({"RTDETRDecoder": Layer(rtdetr_decoder, many=True)})
    varifocal: ClassVar[tuple[float, float]] = (0.25, 1.5)

    def __init__(
        self,
        cfg: str | Path | Mapping[str, Any] = "rtdetr-l.yaml",
        ch: int = 3,
        nc: int | None = None,
        names: Mapping[int, str] | list[str] | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(cfg, ch, nc, names, verbose)

    def start_head(self, strides: list[float]) -> None:
        """Set the stride of all levels together: the decoder knows its own first values."""
        self.stride = torch.tensor([STRIDE], device="cpu")

    def compiled_parts(self) -> tuple[nn.Module, ...]:
        """Return the rows before the decoder, which is compiled by layers."""
        return (self.model,)

    def predict(self, x: Tensor, batch: Mapping[str, Any] | None = None) -> Any:
        """Return predictions for images (B, ch, H, W), see `forward`; ``batch`` has objects for denoising queries."""
        return self.head(self.head_inputs(x), batch)
