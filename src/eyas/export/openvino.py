"""OpenVINO: a folder of two files, for Intel's processors and others that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from eyas.export.base import BoxModel, Card, Exported, ExportError, library
from eyas.export.onnx import KEY, Onnx, check_precision, scratch

GRAPH, WEIGHTS = "model.xml", "model.bin"


@dataclass(frozen=True)
class OpenVino:
    """``_openvino_model``: OpenVINO's own graph, made of the one in ONNX.

    Args:
        half: weights in fp16; the arithmetic is what the device prefers.
        int8: convolutions in integers of 8 bits, fitted to images of the training.
        dynamic: any number of images, of sides that are any multiples of the largest stride.
        batch: images at a time, unless dynamic.
    """

    half: bool = False
    int8: bool = False
    dynamic: bool = False
    batch: int = 1

    name: ClassVar[str] = "openvino"
    suffix: ClassVar[str] = "_openvino_model"
    runs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: two contradict each other.
        """
        check_precision(self.half, self.int8)

    def write(self, model: BoxModel, path: Path, card: Card) -> None:
        """Translate the model and write a folder of its graph, with the card, and its weights.

        Raises:
            ExportError: there is no translation of its code.
            ImportError: a library is missing.
        """
        openvino = library("openvino", "openvino", "format=openvino")
        through = Onnx(int8=self.int8, dynamic=self.dynamic, batch=self.batch)
        with scratch(path.parent) as folder:
            through.write(model, folder / "graph.onnx", card)
            network = openvino.Core().read_model(folder / "graph.onnx")
        card = self.described(card)
        network.set_rt_info(card.text(), [KEY])
        network.set_rt_info(card.licence, ["licence"])
        path.mkdir()
        openvino.save_model(network, path / GRAPH, compress_to_fp16=self.half)

    def described(self, card: Card) -> Card:
        """Return the card of a file with these settings."""
        return Onnx(half=self.half, int8=self.int8, dynamic=self.dynamic, batch=self.batch).described(card)

    def open(self, path: Path) -> Exported:
        """Return what runs a written folder, on the CPU.

        Raises:
            ExportError: it holds no card, or no graph.
            ImportError: OpenVINO is missing.
        """
        if path.name.lower() == GRAPH:  # as OpenVINO itself is given it
            path = path.parent
        for file in (path / GRAPH, path / WEIGHTS):
            if not file.is_file():
                raise ExportError(f"there is no {file}: a folder of OpenVINO holds {GRAPH} and {WEIGHTS}")
        openvino = library("openvino", "openvino", path.name)
        core = openvino.Core()
        try:
            network = core.read_model(path / GRAPH)
        except RuntimeError as error:
            broken = WEIGHTS if "bin file" in str(error) else GRAPH
            raise ExportError(
                f"OpenVINO cannot read {path / broken}: it is cut off, damaged or of another version. Export the "
                "checkpoint again."
            ) from error
        if not network.has_rt_info([KEY]):
            raise ExportError(
                f"{path / GRAPH} says nothing of classes, preprocessing and boxes (no {KEY!r} in its rt_info): Eyas "
                "has not written it. Export the checkpoint again: YOLO('best.pt').export('openvino')."
            )
        # As precise as it was written; OpenVINO would choose bf16 where the processor has it.
        config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = core.compile_model(network, "CPU", config)

        def answer(images: Tensor) -> Tensor:
            return torch.from_numpy(compiled(images.contiguous().numpy())[0].copy())

        return Exported(Card.from_text(network.get_rt_info([KEY]).astype(str)), answer)
