"""ncnn: a folder of a text of layers and a file of weights, for phones and small boards.

The traced graph is written layer by layer; ncnn's own converter is not needed. Layers, their numbered parameters and
the layout of weights are those of https://github.com/Tencent/ncnn/tree/master/docs/developer-guide.

Legend: ``C`` channels, ``H`` rows, ``W`` columns, ``A`` anchors. A tensor (1, C, H, W) of PyTorch is a blob (C, H, W).
"""

from __future__ import annotations

import copy
import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.export import ExportedProgram as Program

from eyas.boxes import cxcywh_to_xyxy
from eyas.export.base import MAX_DET, BoxModel, Card, Exported, ExportError, library
from eyas.export.onnx import INPUT, OUTPUT, precision_of
from eyas.export.pt2 import CARD, traced
from eyas.models.heads import Detect
from eyas.models.postprocess import topk_detections

LAYERS, WEIGHTS = "model.ncnn.param", "model.ncnn.bin"
MAGIC = 7767517
PLAIN, HALF = struct.pack("<I", 0), struct.pack("<I", 0x01306B47)  # what stands before weights of a convolution
ANSWER = (
    "blob 'boxes' (4 + classes, anchors): cx cy w h in pixels of the input, then class scores; the best 300 are the "
    "detections, without NMS where end2end is true"
)
PERMUTED = {"whc": 0, "hwc": 1, "wch": 2, "cwh": 3, "hcw": 4, "chw": 5}  # axes of the output, from inside outwards
BINARY = {"add": 0, "sub": 1, "mul": 2, "div": 3}
REVERSED_DIFFERENCE = 7
UNARY = {
    "silu": "Swish",
    "sigmoid": "Sigmoid",
    "relu": "ReLU",
    "gelu": "GELU",
    "tanh": "TanH",
    "hardswish": "HardSwish",
}


@dataclass(frozen=True)
class Ncnn:
    """``_ncnn_model``: one image of one size. YOLO26 and what is built of such layers; RT-DETR is not.

    ncnn cannot sort: the file answers with the boxes of all anchors, of which whoever runs it keeps the best.

    Args:
        half: fp16 weights of convolutions.
    """

    half: bool = False

    name: ClassVar[str] = "ncnn"
    suffix: ClassVar[str] = "_ncnn_model"
    runs: ClassVar[bool] = True

    def write(self, model: BoxModel, path: Path, card: Card) -> None:
        """Write a folder of layers, weights and card.

        Raises:
            ExportError: the model has a layer that ncnn has not.
        """
        card = replace(card, batch=1, precision=precision_of(self.half))
        network = Layers(half=self.half)
        network.take(traced(dense(model), card))
        path.mkdir()
        (path / LAYERS).write_text(network.text())
        (path / WEIGHTS).write_bytes(b"".join(network.weights))
        (path / CARD).write_text(card.text(answers=ANSWER))

    def open(self, path: Path) -> Exported:
        """Return what runs a written folder, on the CPU.

        Raises:
            ExportError: it holds no card, or layers that ncnn cannot read.
            ImportError: ncnn is missing.
        """
        ncnn = library("ncnn", "ncnn", path.name)
        if not (path / CARD).is_file():
            raise ExportError(f"{path} holds no {CARD}: Eyas has not written it")
        card = Card.from_text((path / CARD).read_text())
        network = ncnn.Net()
        options = network.opt
        options.num_threads = torch.get_num_threads()
        # As precise as it was written.
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        options.use_bf16_storage = False
        if network.load_param(str(path / LAYERS)) or network.load_model(str(path / WEIGHTS)):
            raise ExportError(f"ncnn cannot read {LAYERS} and {WEIGHTS} in {path}")

        def answer(images: Tensor) -> Tensor:
            run = network.create_extractor()
            pixels = images[0].contiguous().numpy()  # ncnn reads them while it runs, and does not keep them alive
            run.input(INPUT, ncnn.Mat(pixels))
            failed, found = run.extract(OUTPUT)
            if failed:
                raise ExportError(f"ncnn cannot run {path}")
            boxes = torch.from_numpy(found.numpy().copy())[None]  # (1, 4 + C, A)
            if not card.end2end:
                return boxes
            return topk_detections(cxcywh_to_xyxy(boxes[:, :4].transpose(1, 2)), boxes[:, 4:].transpose(1, 2), MAX_DET)

        return Exported(card, answer)


def dense(model: BoxModel) -> BoxModel:
    """Return the model with the boxes of all anchors as its answer, (B, 4 + C, A).

    Raises:
        ExportError: it has no such boxes.
    """
    # Samples stay with who gave them: after a training they hold it, and what it holds cannot be copied.
    model = copy.deepcopy(model, {id(model.samples): model.samples})
    head = model.detector.head
    if not isinstance(head, Detect):
        raise ExportError(
            f"ncnn has no layers for the decoder of {model.detector.family} ({type(head).__name__}): its attention "
            "samples maps at places that are computed. Use onnx or openvino."
        )
    head.answer_densely()
    return model


class Layers:
    """The layers of ncnn that a traced graph becomes.

    Args:
        half: write weights of convolutions in fp16.

    Attributes:
        lines: one of each layer, without the names of its blobs: type, inputs, outputs, parameters.
        weights: what the layers read from the file of weights, in their order.
    """

    def __init__(self, *, half: bool) -> None:
        self.half = half
        self.lines: list[tuple[str, list[str], list[str], str]] = []
        self.weights: list[bytes] = []
        self.blobs = 0

    def take(self, program: Program) -> None:
        """Write all layers of a graph of one image.

        Raises:
            ExportError: ncnn has none for a part of it.
        """
        values = constants_of(program)
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name not in values:
                _, channels, height, width = node.meta["val"].shape
                values[node.name] = Blob(INPUT, node.meta["val"].shape)
                self.lines.append(("Input", [], [INPUT], f"0={width} 1={height} 2={channels}"))
            elif node.op == "call_function":
                args = torch.fx.node.map_arg(node.args, lambda part: values[part.name])
                values[node.name] = self.step(node, args)
            elif node.op == "output":
                (found,) = torch.fx.node.map_arg(node.args[0], lambda part: values[part.name])
                self.lines.append(("Noop", [found.name], [OUTPUT], ""))

    def step(self, node: torch.fx.Node, args: Any) -> Any:
        """Return the value of a node: a tensor if it does not depend on the images, else a blob."""
        if not depends(args):
            return node.target(*args, **node.kwargs)  # type: ignore[operator]
        if node.target is operator.getitem:
            return args[0][args[1]]
        schema = getattr(node.target, "_schema", None)
        name = schema.name.removeprefix("aten::") if schema else str(node.target)
        write = WRITERS.get(name)
        if write is None:
            raise ExportError(f"ncnn has no layer for {node.target}, or Eyas does not write it: use onnx or openvino")
        return write(self, name, node, *args)

    def add(self, kind: str, inputs: Sequence[Blob], shape: Sequence[int], parameters: str = "") -> Blob:
        """Write a layer of one output, and return that; ``shape`` is that of PyTorch."""
        found = self.blob(shape)
        self.lines.append((kind, [blob.name for blob in inputs], [found.name], parameters))
        return found

    def blob(self, shape: Sequence[int]) -> Blob:
        """Return a blob with a name of its own."""
        self.blobs += 1
        return Blob(f"b{self.blobs}", tuple(shape))

    def constant(self, tensor: Tensor, ndim: int) -> Blob:
        """Write a tensor as a layer, with as many axes as one of ``ndim`` has; that of the images is left out."""
        shape = (1,) * (ndim - tensor.ndim) + tuple(tensor.shape)
        if shape[0] != 1 or not 2 <= ndim <= 4:
            raise ExportError(f"ncnn cannot hold numbers of shape {tuple(tensor.shape)} for all images")
        self.weights.append(as_bytes(tensor))
        sizes = " ".join(f"{i}={size}" for i, size in enumerate(reversed(shape[1:])))
        return self.add("MemoryData", [], shape, sizes)

    def text(self) -> str:
        """Return the layers as ncnn reads them. What several layers read, a layer of its own hands out."""
        readers: dict[str, int] = {}
        for _, inputs, _, _ in self.lines:
            for name in inputs:
                readers[name] = readers.get(name, 0) + 1
        handed: dict[str, int] = {}
        written: list[tuple[str, list[str], list[str], str]] = []
        for kind, inputs, outputs, parameters in self.lines:
            renamed = []
            for name in inputs:
                part = handed.get(name, 0)
                handed[name] = part + 1
                renamed.append(f"{name}_{part}" if readers[name] > 1 else name)
            written.append((kind, renamed, outputs, parameters))
            for name in outputs:
                if readers.get(name, 0) > 1:
                    written.append(("Split", [name], [f"{name}_{i}" for i in range(readers[name])], ""))
        blobs = sum(len(outputs) for _, _, outputs, _ in written)
        rows = [
            " ".join((kind, f"l{i}", str(len(inputs)), str(len(outputs)), *inputs, *outputs, parameters)).rstrip()
            for i, (kind, inputs, outputs, parameters) in enumerate(written)
        ]
        return "\n".join((str(MAGIC), f"{len(written)} {blobs}", *rows)) + "\n"


@dataclass(frozen=True)
class Blob:
    """What a layer gives: its name, and its shape in PyTorch, that of one image."""

    name: str
    shape: tuple[int, ...]


def constants_of(program: Program) -> dict[str, Any]:
    """Return weights and other fixed tensors of a graph by the names of their nodes."""
    signature = program.graph_signature
    held = {**program.state_dict, **program.constants}
    named = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    return {node: held[name].detach() for node, name in named.items()}


def depends(args: object) -> bool:
    """Whether there is a blob among arguments."""
    return any(isinstance(part, Blob) or (isinstance(part, list | tuple) and depends(part)) for part in args)  # type: ignore[attr-defined]


def as_bytes(tensor: Tensor) -> bytes:
    """Return the numbers of a tensor in fp32."""
    return tensor.float().contiguous().numpy().tobytes()


def shape_of(node: torch.fx.Node) -> tuple[int, ...]:
    """Return the shape that a node gives."""
    return tuple(node.meta["val"].shape)


# -- one function for each kind of layer: (layers, name of the operation, node, its arguments) -> blob -----------------
def convolution(
    layers: Layers,
    name: str,
    node: torch.fx.Node,
    x: Blob,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Blob:
    """Write a convolution with its weights."""
    (rows, columns), (down, right) = weight.shape[2:], twice(stride)
    (top, left), (dilated_rows, dilated_columns) = twice(padding), twice(dilation)
    parameters = (
        f"0={weight.shape[0]} 1={columns} 11={rows} 2={dilated_columns} 12={dilated_rows} 3={right} 13={down} "
        f"4={left} 14={top} 5={int(bias is not None)} 6={weight.numel()}"
    )
    if layers.half:
        held = weight.half().contiguous().numpy().tobytes()
        layers.weights += [HALF, held + b"\0" * (-len(held) % 4)]
    else:
        layers.weights += [PLAIN, as_bytes(weight)]
    if bias is not None:
        layers.weights.append(as_bytes(bias))
    if groups == 1:
        return layers.add("Convolution", [x], shape_of(node), parameters)
    return layers.add("ConvolutionDepthWise", [x], shape_of(node), f"{parameters} 7={groups}")


def twice(sizes: Sequence[int]) -> tuple[int, int]:
    """Return sizes of rows and columns, where one number may stand for both."""
    rows, columns = sizes if len(sizes) == 2 else (sizes[0], sizes[0])
    return rows, columns


def unary(layers: Layers, name: str, node: torch.fx.Node, x: Blob, *_: object) -> Blob:
    """Write a function of single numbers."""
    return layers.add(UNARY[name.removesuffix("_")], [x], x.shape)


def binary(layers: Layers, name: str, node: torch.fx.Node, a: Any, b: Any) -> Blob:
    """Write an operation of two blobs, or of a blob and a number or fixed tensor."""
    name = name.removesuffix("_")
    if isinstance(b, int | float):
        return layers.add("BinaryOp", [a], shape_of(node), f"0={BINARY[name]} 1=1 2={float(b)!r}")
    ndim = len(shape_of(node))
    pair = [part if isinstance(part, Blob) else layers.constant(part, ndim) for part in (a, b)]
    if len(pair[0].shape) != len(pair[1].shape):
        raise ExportError(f"ncnn would lay {pair[0].shape} and {pair[1].shape} otherwise side by side")
    return layers.add("BinaryOp", pair, shape_of(node), f"0={BINARY[name]}")


def difference_from(layers: Layers, name: str, node: torch.fx.Node, x: Blob, number: float, *_: object) -> Blob:
    """Write a number minus a blob."""
    return layers.add("BinaryOp", [x], x.shape, f"0={REVERSED_DIFFERENCE} 1=1 2={float(number)!r}")


def concat(layers: Layers, name: str, node: torch.fx.Node, parts: Sequence[Any], axis: int = 0) -> Blob:
    """Write blobs one after the other."""
    ndim = len(shape_of(node))
    blobs = [part if isinstance(part, Blob) else layers.constant(part, ndim) for part in parts]
    return layers.add("Concat", blobs, shape_of(node), f"0={inner(axis, ndim)}")


def split(layers: Layers, name: str, node: torch.fx.Node, x: Blob, sizes: Any, axis: int = 0) -> list[Blob]:
    """Write a blob as several."""
    parts = [layers.blob(value.shape) for value in node.meta["val"]]
    axis = inner(axis, len(x.shape))
    widths = [part.shape[axis + 1] for part in parts]
    parameters = f"-23300={len(widths)},{','.join(map(str, widths))} 1={axis}"
    layers.lines.append(("Slice", [x.name], [part.name for part in parts], parameters))
    return parts


def cut(
    layers: Layers,
    name: str,
    node: torch.fx.Node,
    x: Blob,
    axis: int = 0,
    begin: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Blob:
    """Write a part of a blob along one axis."""
    if step != 1:
        raise ExportError("ncnn cannot skip rows of a blob")
    size = x.shape[axis]
    first, last, _ = slice(begin, end).indices(size)
    axis = inner(axis, len(x.shape))
    return layers.add("Crop", [x], shape_of(node), f"-23309=1,{first} -23310=1,{last} -23311=1,{axis}")


def permute(layers: Layers, name: str, node: torch.fx.Node, x: Blob, order: Sequence[int]) -> Blob:
    """Write a blob with its axes in another order."""
    order = [axis % len(x.shape) for axis in order]
    if order[0] != 0 or not 3 <= len(order) <= 4:
        raise ExportError(f"ncnn cannot order the axes of {x.shape} as {order}")
    inside = [axis - 1 for axis in order[1:]]
    if len(inside) == 2:
        return layers.add("Permute", [x], shape_of(node), f"0={inside[0]}")  # 0: as it is, 1: the other way round
    letters = "".join("chw"[axis] for axis in reversed(inside))
    return layers.add("Permute", [x], shape_of(node), f"0={PERMUTED[letters]}")


def transpose(layers: Layers, name: str, node: torch.fx.Node, x: Blob, first: int, second: int) -> Blob:
    """Write a blob with two axes exchanged."""
    order = list(range(len(x.shape)))
    order[first], order[second] = order[second], order[first]
    return permute(layers, name, node, x, order)


def reshape(layers: Layers, name: str, node: torch.fx.Node, x: Blob, *_: object) -> Blob:
    """Write a blob in another shape."""
    shape = shape_of(node)
    if shape[0] != 1 or not 2 <= len(shape) <= 4:
        raise ExportError(f"ncnn cannot lay {x.shape} out as {shape}")
    return layers.add("Reshape", [x], shape, " ".join(f"{i}={size}" for i, size in enumerate(reversed(shape[1:]))))


def softmax(layers: Layers, name: str, node: torch.fx.Node, x: Blob, axis: int, *_: object) -> Blob:
    """Write shares that sum to 1 along an axis."""
    return layers.add("Softmax", [x], x.shape, f"0={inner(axis, len(x.shape))} 1=1")


def matmul(layers: Layers, name: str, node: torch.fx.Node, a: Blob, b: Blob) -> Blob:
    """Write a product of matrices."""
    return layers.add("MatMul", [a, b], shape_of(node))


def max_pool(
    layers: Layers,
    name: str,
    node: torch.fx.Node,
    x: Blob,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    *_: object,
) -> Blob:
    """Write the largest of each window."""
    (rows, columns), (down, right), (top, left) = twice(kernel), twice(stride or kernel), twice(padding)
    parameters = f"0=0 1={columns} 11={rows} 2={right} 12={down} 3={left} 13={top} 14={left} 15={top} 5=1"
    return layers.add("Pooling", [x], shape_of(node), parameters)


def upsample(layers: Layers, name: str, node: torch.fx.Node, x: Blob, *_: object) -> Blob:
    """Write every cell as several."""
    height, width = shape_of(node)[2:]
    return layers.add("Interp", [x], shape_of(node), f"0=1 3={height} 4={width}")


def same(layers: Layers, name: str, node: torch.fx.Node, x: Blob, *_: object) -> Blob:
    """Write nothing: the numbers stay."""
    return x


def inner(axis: int, ndim: int) -> int:
    """Return an axis as ncnn counts it, without that of the images.

    Raises:
        ExportError: it is that of the images.
    """
    if axis % ndim == 0:
        raise ExportError("ncnn knows no axis of images")
    return axis % ndim - 1


WRITERS: Mapping[str, Callable[..., Any]] = {
    "conv2d": convolution,
    **{f"{name}{end}": unary for name in UNARY for end in ("", "_")},
    **{f"{name}{end}": binary for name in BINARY for end in ("", "_")},
    "rsub": difference_from,
    "cat": concat,
    **{f"{name}": split for name in ("split", "split_with_sizes", "chunk")},
    "slice": cut,
    "permute": permute,
    "transpose": transpose,
    **{f"{name}": reshape for name in ("reshape", "view", "flatten", "unflatten", "_unsafe_view")},
    "softmax": softmax,
    "matmul": matmul,
    "max_pool2d": max_pool,
    "upsample_nearest2d": upsample,
    **{f"{name}": same for name in ("contiguous", "clone", "dropout", "detach", "alias")},
}
"""Operation of a traced graph -> what writes its layer."""
