"""Core ML: a package for Apple's devices. Written anywhere, run on macOS alone."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from eyas.export.base import BoxModel, Card, Exported, ExportError, library
from eyas.export.onnx import INPUT, KEY, OUTPUT, precision_of
from eyas.export.pt2 import traced


@dataclass(frozen=True)
class CoreMl:
    """``.mlpackage``: an ML program for images of one size.

    Args:
        half: fp16 weights and arithmetic.
        batch: images at a time.
    """

    half: bool = False
    batch: int = 1

    name: ClassVar[str] = "coreml"
    suffix: ClassVar[str] = ".mlpackage"
    runs: ClassVar[bool] = True

    def write(self, model: BoxModel, path: Path, card: Card) -> None:
        """Translate the model and write its package with the card.

        Raises:
            ExportError: there is no translation of its code.
            ImportError: coremltools is missing.
        """
        tools = library("coremltools", "", "format=coreml")
        card = replace(card, batch=self.batch, precision=precision_of(self.half))
        program = traced(model, card).run_decompositions({})
        try:
            package = tools.convert(
                program,
                inputs=[tools.TensorType(name=INPUT, shape=tuple(model.example(card, self.batch).shape))],
                outputs=[tools.TensorType(name=OUTPUT)],
                convert_to="mlprogram",
                compute_precision=tools.precision.FLOAT16 if self.half else tools.precision.FLOAT32,
                minimum_deployment_target=tools.target.iOS16,
            )
        except (NotImplementedError, ValueError, RuntimeError) as error:
            raise ExportError(f"coremltools cannot translate a {type(model.detector).__name__}: {error}") from error
        package.user_defined_metadata[KEY] = card.text()
        package.license, package.author = card.licence, f"Eyas {card.version}"
        package.save(str(path))

    def open(self, path: Path) -> Exported:
        """Return what runs a written package.

        Raises:
            ExportError: it holds no card, or this is no macOS.
            ImportError: coremltools is missing.
        """
        if sys.platform != "darwin":
            raise ExportError("Core ML runs on macOS alone: export there, or with verify=False")
        tools = library("coremltools", "", path.name)
        package = tools.models.MLModel(str(path))
        if KEY not in package.user_defined_metadata:
            raise ExportError(f"{path} holds no {KEY!r} in its metadata: Eyas has not written it")

        def answer(images: Tensor) -> Tensor:
            return torch.from_numpy(package.predict({INPUT: images.contiguous().numpy()})[OUTPUT])

        return Exported(Card.from_text(package.user_defined_metadata[KEY]), answer)
