"""ONNX: the graph that most other runtimes read, run here by ONNX Runtime."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from eyas.export.base import BoxModel, Card, Exported, ExportError, library, quiet, untraceable
from eyas.export.pt2 import traced

KEY = "eyas"  # of the metadata that holds the card
INPUT, OUTPUT = "images", "boxes"
OPSETS = range(18, 24)  # that PyTorch's exporter writes; deformable attention needs GridSample, which is in all of them
WEIGHTY = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}  # shapes are known, and constants folded
WHY = "format=onnx"
CHATTY = ("torch.onnx", "onnxscript", "onnx_ir")  # they speak of libraries that no detector needs


@dataclass(frozen=True)
class Onnx:
    """``.onnx``: one graph with its weights inside.

    Args:
        half: fp16 weights and arithmetic, but for what makes boxes of the outputs; images and boxes stay fp32.
        int8: convolutions in integers of 8 bits, fitted to images of the training.
        dynamic: any number of images, of sides that are any multiples of the largest stride.
        batch: images at a time, unless dynamic.
        opset: version of ONNX's operators, 18 to 23.
        simplify: fold constants and drop nodes that do nothing.
    """

    half: bool = False
    int8: bool = False
    dynamic: bool = False
    batch: int = 1
    opset: int = 18
    simplify: bool = True

    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    runs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: two contradict each other, or one is out of range.
        """
        check_precision(self.half, self.int8)
        if self.opset not in OPSETS:
            raise ValueError(f"opset={self.opset} is not written: choose {OPSETS[0]} to {OPSETS[-1]}")

    def write(self, model: BoxModel, path: Path, card: Card) -> None:
        """Translate the model and write its graph, weights and card.

        Raises:
            ExportError: there is no translation of its code.
            ImportError: a library is missing.
        """
        card = self.described(card)
        onnx = library("onnx", "onnx", WHY)
        graph = self.graph(model, card)
        if self.half:
            graph = halved(graph)
        if self.int8:
            graph = quantised(graph, model, path.parent)
        del graph.metadata_props[:]
        onnx.helper.set_model_props(
            graph, {KEY: card.text(), "licence": card.licence, "author": f"Eyas {card.version}"}
        )
        onnx.save(graph, path)

    def described(self, card: Card) -> Card:
        """Return the card of a file with these settings."""
        batch, precision = None if self.dynamic else self.batch, precision_of(self.half, self.int8)
        return replace(card, batch=batch, dynamic=self.dynamic, precision=precision)

    def graph(self, model: BoxModel, card: Card) -> Any:
        """Return the graph, an ``onnx.ModelProto``, in fp32.

        Raises:
            ExportError: there is no translation of the model's code.
        """
        library("onnxscript", "onnx", WHY)
        program = traced(model, card)
        with quiet(*CHATTY):
            try:
                found = torch.onnx.export(
                    program,
                    dynamo=True,
                    input_names=[INPUT],
                    output_names=[OUTPUT],
                    opset_version=self.opset,
                    optimize=self.simplify,
                    verbose=False,
                )
            except torch.onnx.OnnxExporterError as error:
                raise untraceable(model, "ONNX", error, "format=torchscript may work.") from error
        assert found is not None
        graph = found.model_proto
        del graph.graph.value_info[:]
        for node in graph.graph.node:
            del node.metadata_props[:]  # where each node stood in the code of the model: as large as a small network
        return graph

    def open(self, path: Path) -> Exported:
        """Return what runs a written file, on the CPU.

        Raises:
            ExportError: it holds no card, or is no ONNX file.
            ImportError: ONNX Runtime is missing.
        """
        runtime = library("onnxruntime", "onnx", f"{path.name}")
        try:
            session = runtime.InferenceSession(str(path), session_options(runtime), providers=["CPUExecutionProvider"])
        except runtime_errors(runtime) as error:
            reason = str(error).partition("\n")[0]
            raise ExportError(f"{path} is no ONNX file that ONNX Runtime reads: {reason}") from error
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            inputs = ", ".join(f"{given.name} {given.shape}" for given in session.get_inputs())
            raise ExportError(
                f"{path} says nothing of classes, preprocessing and boxes (no {KEY!r} in its metadata; it takes "
                f"{inputs}): Eyas has not written it. Export the checkpoint again: YOLO('best.pt').export('onnx')."
            )

        def answer(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run([OUTPUT], {INPUT: images.contiguous().numpy()})[0])

        return Exported(Card.from_text(text), answer)


def runtime_errors(runtime: Any) -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises of a file that it cannot read or run; it has no base for them."""
    state = runtime.capi.onnxruntime_pybind11_state
    return (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented)


def session_options(runtime: Any) -> Any:
    """Return options of a session: threads as PyTorch has them, and no chatter."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return options


@contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """Give a folder, beside others that are written, for files that are needed inside the block."""
    with tempfile.TemporaryDirectory(prefix=".export-", dir=beside) as folder:
        yield Path(folder)


def check_precision(half: bool, int8: bool) -> None:
    """Check that at most one lower precision is asked for.

    Raises:
        ValueError: both are.
    """
    if half and int8:
        raise ValueError("half and int8 are two precisions: choose one")


def precision_of(half: bool, int8: bool = False) -> str:
    """Return the precision as a card names it."""
    return "int8" if int8 else "fp16" if half else "fp32"


def decoding(graph: Any) -> list[str]:
    """Return the names of the nodes behind the last weights: they make boxes in pixels, which fp16 and int8 would
    round to whole pixels and more."""
    makers = {output: node for node in graph.graph.node for output in node.output}
    found, waiting = {}, [value.name for value in graph.graph.output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found and node.op_type not in WEIGHTY:
            found[node.name] = node
            waiting += node.input
    return list(found)


def last_weights(graph: Any) -> list[str]:
    """Return the names of the nodes with weights that the decoding reads: the outputs of the head."""
    behind = set(decoding(graph))
    read = {name for node in graph.graph.node if node.name in behind for name in node.input}
    return [node.name for node in graph.graph.node if node.op_type in WEIGHTY and read & set(node.output)]


def halved(graph: Any) -> Any:
    """Return a graph with fp16 weights and arithmetic, but for the decoding."""
    library("onnxruntime", "onnx", "half=True")
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that numbers beyond the range of fp16 are cut
        found = convert_float_to_float16(graph, keep_io_types=True, node_block_list=decoding(graph))
    OnnxModel(found).topological_sort()  # the conversion puts what it adds at the end, where not every runtime looks
    del found.graph.value_info[:]  # of the types before
    return without_detours(found)


def without_detours(graph: Any) -> Any:
    """Return a graph in which no number goes from fp32 to fp16 and back: the conversion leaves such steps between nodes
    that are kept in fp32, and they would round boxes after all."""
    onnx = library("onnx", "onnx", "half=True")
    single, half = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    inferred = onnx.shape_inference.infer_shapes(graph).graph.value_info
    types = {value.name: value.type.tensor_type.elem_type for value in inferred}
    to = {node.output[0]: (node.attribute[0].i, node.input[0]) for node in graph.graph.node if node.op_type == "Cast"}
    shorter = {}
    for output, (kind, given) in to.items():
        through, start = to.get(given, (None, ""))
        if kind == single and through == half and types.get(start) == single:
            shorter[output] = start
    for node in graph.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = shorter.get(name, name)
        if node.output[0] in shorter:  # of the graph itself, perhaps, whose name stays
            node.input[0] = shorter[node.output[0]]
    given = {value.name for value in graph.graph.output}
    for node in reversed(list(graph.graph.node)):
        read = given | {name for other in graph.graph.node for name in other.input}
        if node.op_type == "Cast" and node.output[0] not in read:
            graph.graph.node.remove(node)
    return graph


class Reader:
    """Gives images to ONNX Runtime's calibration, one by one."""

    def __init__(self, images: Iterable[Tensor], batch: int) -> None:
        self.images, self.batch = iter(images), batch

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next input, None at the end."""
        image = next(self.images, None)
        return None if image is None else {INPUT: image.expand(self.batch, -1, -1, -1).contiguous().numpy()}


def quantised(graph: Any, model: BoxModel, folder: Path) -> Any:
    """Return a graph whose convolutions compute in integers of 8 bits, but for the outputs of the head.

    Raises:
        ExportError: there are no images to fit it to.
    """
    onnx = library("onnx", "onnx", "int8=True")
    library("onnxruntime", "onnx", "int8=True")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    batch = graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    reader = type("Images", (Reader, CalibrationDataReader), {})(model.samples(), batch)
    with scratch(folder) as temporary, quiet(*CHATTY):
        before, after = temporary / "before.onnx", temporary / "after.onnx"
        shaped = onnx.shape_inference.infer_shapes(graph)
        onnx.helper.set_model_props(shaped, PREPARED)  # or it is asked for, in a warning
        onnx.save(shaped, before)
        quantize_static(
            before,
            after,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[*last_weights(graph), *decoding(graph)],
            per_channel=True,
            # Weights of 7 bits: sums of 8 by 8 bits saturate on processors without VNNI, and boxes jump. Measured with
            # YOLO26n on one: mAP50-95 0.558 instead of 0.528, where fp32 has 0.560.
            reduce_range=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )
        return onnx.load(after)
