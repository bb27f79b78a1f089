"""Weights and table of layers without code: for storage and exchange, and to go on training from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from eyas.checkpoint import CheckpointError, class_name, load_checkpoint
from eyas.checkpoint.safetensors import SafeTensorsError, described, read_safetensors, write_safetensors
from eyas.export.base import BoxModel, Card, Exported, ExportError
from eyas.export.onnx import precision_of
from eyas.export.pt2 import CARD
from eyas.models import Detector, network_from
from eyas.train.checks import warn_if_not_portable
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
        return Exported(Card.from_text(texts[CARD]), torch.no_grad()(BoxModel(rebuilt(path))))


def rebuilt(path: Path) -> Detector:
    """Return the network of a file that was just written, by the class of the model, which is here.

    Raises:
        ExportError: the class builds another network, or takes arguments of its own.
    """
    checkpoint = load_checkpoint(path)
    try:
        network = network_from(checkpoint, model_class=class_at_hand(checkpoint["model_class"]))
    except (TypeError, CheckpointError) as error:
        raise ExportError(
            f"{path.name} cannot be opened by the class of its model, {checkpoint['model_class']}, which has to take a "
            f"table, nc, names and verbose, and no more: {error}"
        ) from error
    warn_if_not_portable(network)
    return network


def class_at_hand(name: str) -> type[Detector] | None:
    """Return the latest class of models with that name that this process has, None where there is none."""
    known: list[type[Detector]] = [Detector]
    for cls in known:
        known += cls.__subclasses__()
    return next((cls for cls in reversed(known) if class_name(cls) == name), None)
