"""TorchScript: a recorded run of the network, for LibTorch and for services that load it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from eyas.export.base import BoxModel, Card, Exported, ExportError, untraceable
from eyas.export.pt2 import CARD, UNTRACEABLE


@dataclass(frozen=True)
class TorchScript:
    """``.torchscript``: fp32, images of one size.

    Args:
        batch: images at a time.
    """

    batch: int = 1

    name: ClassVar[str] = "torchscript"
    suffix: ClassVar[str] = ".torchscript"
    runs: ClassVar[bool] = True

    def write(self, model: BoxModel, path: Path, card: Card) -> None:
        """Record one run of the model and write it with its card.

        Raises:
            ExportError: it cannot be recorded.
        """
        card = replace(card, batch=self.batch)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that it is deprecated, and that sizes become constants: they do here
            try:
                script = torch.jit.trace(model, model.example(card, self.batch), check_trace=False)
            except UNTRACEABLE as error:
                raise untraceable(model, "torch.jit", error) from error
            torch.jit.save(script, str(path), _extra_files={CARD: card.text()})

    def open(self, path: Path) -> Exported:
        """Return what runs a written file, on the CPU.

        Raises:
            ExportError: it holds no card.
        """
        extra = {CARD: ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                script = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
            except RuntimeError as error:
                reason = str(error).partition("\n")[0]
                raise ExportError(f"{path} is no TorchScript that this PyTorch reads: {reason}") from error
        if not extra[CARD]:
            raise ExportError(f"{path} holds no {CARD}: it is a TorchScript that Eyas has not written")
        card = Card.from_text(text_of(extra[CARD]))
        return Exported(card, torch.no_grad()(script))


def text_of(value: str | bytes) -> str:
    """Return an extra file as text; PyTorch gives bytes."""
    return value.decode() if isinstance(value, bytes) else value
