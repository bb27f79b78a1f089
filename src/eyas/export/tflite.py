"""TensorFlow Lite, now LiteRT: one file for phones and small boards."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from eyas.export.base import BoxModel, Card, Exported, ExportError, library
from eyas.export.pt2 import CARD, UNTRACEABLE


@dataclass(frozen=True)
class TfLite:
    """``.tflite``: fp32, images of one size. The card is the one file of a ZIP archive behind the graph.

    Args:
        batch: images at a time.
    """

    batch: int = 1

    name: ClassVar[str] = "tflite"
    suffix: ClassVar[str] = ".tflite"
    runs: ClassVar[bool] = True

    def write(self, model: BoxModel, path: Path, card: Card) -> None:
        """Translate the model and write its graph, weights and card.

        Raises:
            ExportError: there is no translation of its code.
            ImportError: litert-torch is missing.
        """
        litert = library("litert_torch", "", "format=tflite")
        card = replace(card, batch=self.batch)
        try:
            litert.convert(model, (model.example(card, self.batch),)).export(str(path))
        except UNTRACEABLE as error:
            raise ExportError(f"litert-torch cannot translate a {type(model.detector).__name__}: {error}") from error
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(CARD, card.text())

    def open(self, path: Path) -> Exported:
        """Return what runs a written file, on the CPU.

        Raises:
            ExportError: it holds no card.
            ImportError: ai-edge-litert is missing.
        """
        text = appended(path)
        interpreter = library("ai_edge_litert.interpreter", "", path.name).Interpreter(model_path=str(path))
        run = interpreter.get_signature_runner()
        (given,) = run.get_input_details()

        def answer(images: Tensor) -> Tensor:
            (boxes,) = run(**{given: images.contiguous().numpy()}).values()
            return torch.from_numpy(boxes)

        return Exported(Card.from_text(text), answer)


def appended(path: Path) -> str:
    """Return the text of the card behind a graph.

    Raises:
        ExportError: there is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(CARD).decode()
    except (zipfile.BadZipFile, KeyError) as error:
        raise ExportError(f"{path} has no {CARD} behind its graph: Eyas has not written it") from error
