"""TensorRT: an engine for the kind of NVIDIA GPU that it is built on."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from eyas.export.base import BoxModel, Card, Exported, ExportError, library
from eyas.export.onnx import INPUT, OUTPUT, Onnx, check_precision, scratch

LENGTH = struct.Struct("<I")  # of the card in bytes; it stands before the engine
LARGEST_SIDE = 2  # times imgsz, that a dynamic engine is prepared for
LONGEST_CARD = 2**24


@dataclass(frozen=True)
class TensorRt:
    """``.engine``: four bytes of length, the card, the engine. Built and run on the GPU that PyTorch uses.

    Types are those of the graph in ONNX (a strongly typed network, TensorRT 10 and later).

    Args:
        half: fp16, as in ONNX.
        int8: convolutions in integers of 8 bits, fitted to images of the training.
        dynamic: 1 to ``batch`` images, of sides up to twice ``imgsz``.
        batch: images at a time; the largest number where dynamic.
        workspace: memory that building may use, in GiB.
    """

    half: bool = False
    int8: bool = False
    dynamic: bool = False
    batch: int = 1
    workspace: float = 4.0

    name: ClassVar[str] = "tensorrt"
    suffix: ClassVar[str] = ".engine"
    runs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: two contradict each other.
        """
        check_precision(self.half, self.int8)

    def write(self, model: BoxModel, path: Path, card: Card) -> None:
        """Translate the model to ONNX, build the engine, and write both card and engine.

        Raises:
            ExportError: TensorRT cannot build it, or there is no GPU.
            ImportError: a library is missing.
        """
        trt = runtime("format=tensorrt")
        through = Onnx(half=self.half, int8=self.int8, dynamic=self.dynamic, batch=self.batch)
        with scratch(path.parent) as folder:
            through.write(model, folder / "graph.onnx", card)
            graph = (folder / "graph.onnx").read_bytes()
        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(graph):
            raise ExportError(f"TensorRT cannot read the graph: {parser.get_error(0)}")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(self.workspace * 2**30))
        if self.dynamic:
            config.add_optimization_profile(self.profile(builder, model, card))
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise ExportError("TensorRT builds no engine of this model; its own messages above say why")
        described = through.described(card)
        text = replace(described, batch=self.batch if self.dynamic else described.batch).text().encode()
        path.write_bytes(LENGTH.pack(len(text)) + text + bytes(engine))

    def profile(self, builder: Any, model: BoxModel, card: Card) -> Any:
        """Return the range of shapes that a dynamic engine is built for."""
        cell, channels = int(max(card.stride)), model.detector.yaml["channels"]
        shapes = ((1, cell), (self.batch, card.imgsz), (self.batch, LARGEST_SIDE * card.imgsz))
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT, *((images, channels, side, side) for images, side in shapes))
        return profile

    def open(self, path: Path) -> Exported:
        """Return what runs a written file, on the GPU.

        Raises:
            ExportError: it holds no card, another TensorRT or GPU made it, or there is no GPU.
            ImportError: TensorRT is missing.
        """
        text, engine = card_and_engine(path)
        trt = runtime(path.name)
        loaded = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(engine)
        if loaded is None:
            raise ExportError(f"{path} was built by another version of TensorRT, or for another GPU: export it here")
        context = loaded.create_execution_context()
        device = torch.device("cuda", torch.cuda.current_device())

        def answer(images: Tensor) -> Tensor:
            images = images.to(device, torch.float32).contiguous()
            context.set_input_shape(INPUT, tuple(images.shape))
            boxes = torch.empty(tuple(context.get_tensor_shape(OUTPUT)), device=device)
            context.set_tensor_address(INPUT, images.data_ptr())
            context.set_tensor_address(OUTPUT, boxes.data_ptr())
            stream = torch.cuda.current_stream(device)
            context.execute_async_v3(stream.cuda_stream)
            stream.synchronize()  # the input must live until then
            return boxes

        return Exported(Card.from_text(text), answer, device)


def card_and_engine(path: Path) -> tuple[str, bytes]:
    """Return the text of the card and the engine of a file.

    Raises:
        ExportError: it holds no card.
    """
    held = path.read_bytes()
    length = LENGTH.unpack_from(held)[0] if len(held) > LENGTH.size else LONGEST_CARD
    text = held[LENGTH.size : LENGTH.size + length]
    if length >= LONGEST_CARD or not text.startswith(b"{"):
        raise ExportError(f"{path} does not begin with what Eyas says of a model: it is an engine of somebody else")
    return text.decode(), held[LENGTH.size + length :]


def runtime(why: str) -> Any:
    """Return TensorRT.

    Raises:
        ExportError: there is no GPU.
        ImportError: it is not installed.
    """
    trt = library("tensorrt", "", why)
    if not torch.cuda.is_available():
        raise ExportError(f"{why} needs an NVIDIA GPU, which PyTorch finds none of")
    return trt
