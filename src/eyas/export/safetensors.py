"""Weights and table of layers without code: for storage and exchange, and to go on training from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from eyas.checkpoint import load_checkpoint
from eyas.checkpoint.safetensors import SafeTensorsError, described, read_safetensors, write_safetensors
from eyas.export.base import BoxModel, Card, Exported, ExportError
from eyas.export.onnx import precision_of
from eyas.export.pt2 import CARD
from eyas.models import network_from
from eyas.train.state import describe_network


@dataclass(frozen=True)
class SafeTensors:
    """``.safetensors``: a checkpoint, which ``YOLO("best.safetensors")`` opens as one, for training too.

    Args:
        half: fp16 weights, half as large; they are computed with in fp32.
    """

    half: bool = False

    name: ClassVar[str] = "safetensors"
    suffix: ClassVar[str] = ".safetensors"
    runs: ClassVar[bool] = False  # a checkpoint like another

    def write(self, model: BoxModel, path: Path, card: Card) -> None:
        """Write the weights as they are trained, the table of layers and the card."""
        card = replace(card, precision=precision_of(self.half))
        checkpoint = describe_network(model.detector) | {"train_args": {"imgsz": card.imgsz, **card.remembered}}
        if card.white is not None:
            checkpoint["white"] = dict(card.white)
        tensors = {key: self.stored(value) for key, value in model.weights.items()}
        write_safetensors(path, tensors, {"format": "pt", "eyas": described(checkpoint), CARD: card.text()})

    def stored(self, tensor: Tensor) -> Tensor:
        """Return a tensor in the precision of the file; whole numbers are counters, and stay."""
        return tensor.half() if self.half and tensor.is_floating_point() else tensor

    def open(self, path: Path) -> Exported:
        """Return what runs a written file, on the CPU.

        Raises:
            ExportError: it holds no card.
        """
        try:
            texts = read_safetensors(path)[1]
        except SafeTensorsError as error:
            raise ExportError(str(error)) from error
        if CARD not in texts:
            raise ExportError(f"{path} holds no {CARD}: Eyas has not written it")
        model = BoxModel(network_from(load_checkpoint(path)))
        return Exported(Card.from_text(texts[CARD]), torch.no_grad()(model))
