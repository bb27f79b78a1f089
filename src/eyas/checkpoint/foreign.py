"""The incumbent's weights, read without running anything (spec core H).

Its ``.pt`` files are archives of ``torch.save`` that hold a whole network as Python objects. `read_weights` follows the
description as data (see `eyas.checkpoint.pickled`), takes tensors out of the tree of modules, and returns what Eyas'
own checkpoints hold. Everything in the file that is neither a tensor nor a plain value stays behind.
"""

from __future__ import annotations

import itertools
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyas.checkpoint.pickled import CodeInFileError, ForeignFileError, Name, Stub, TensorRef, read_pickle
from eyas.log import LOGGER

__all__ = ["ForeignFileError", "read_weights"]

DTYPES = {
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
HEADS = ("Detect", "RTDETRDecoder")  # the classes of the last layer of the networks that can be rebuilt
DEPTH = 64  # of modules inside modules and of values inside values; real files stay below 12
MODULES = 20_000  # the largest network of the family has some 1,500
VALUES = 100_000  # in one table, and tensors in one network
CLASSES = 100_000  # the largest public data sets name some 20,000
REMEMBERED = {"imgsz": int, "data": str, "single_cls": bool}  # options that serve as defaults later


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read a detector's weights from a file of the incumbent.

    Returns:
        A checkpoint as Eyas writes them: ``model`` (state dict, float32), ``yaml`` (table of layers), ``nc``, ``names``
        {index: name}, ``train_args`` (input size and data of its training, if known), ``eyas`` (where it came from).

    Raises:
        ForeignFileError: a ``ValueError`` that says what the file is instead, or what is wrong with it.
    """
    path = Path(path)
    try:
        with open_archive(path) as archive:
            content = read_pickle(archive.description())
            network = find_network(content)
            state = {key: archive.tensor(ref) for key, ref in network_tensors(network)}
    except zipfile.BadZipFile as error:
        raise ForeignFileError(f"{path} is damaged or cut off: {error}") from None
    except CodeInFileError as error:
        raise CodeInFileError(f"{path} holds code, not just tensors, and was not opened: {error}.") from None
    except ForeignFileError as error:
        raise ForeignFileError(f"{path} was not opened: {error}.") from None
    tell_licence(path, content)
    return describe(content, network, state)


# -- the archive -------------------------------------------------------------------------------------------------------
class Archive:
    """An archive of ``torch.save``, whose entries are read only when they are as large as they say."""

    def __init__(self, file: zipfile.ZipFile, size: int) -> None:
        self.file = file
        self.blocks: dict[str, bytearray] = {}  # by key; together no larger than the file
        self.budget = size  # elements that may be taken out: no honest number takes less than a byte
        self.entries = {info.filename: info for info in file.infolist()}
        self.root = next((name.removesuffix("data.pkl") for name in self.entries if name.endswith("/data.pkl")), "")
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in self.entries):
            raise ForeignFileError("it is a TorchScript program, not weights; use the .pt file that it was made from")
        if not self.root:
            raise ForeignFileError("it is a zip archive, but not one of torch.save")
        compressed = any(info.compress_type != zipfile.ZIP_STORED for info in self.entries.values())
        if compressed or sum(info.file_size for info in self.entries.values()) > size:
            raise ForeignFileError("its entries claim to be larger than the file, which torch.save never writes")
        if any(info.flag_bits & 1 for info in self.entries.values()):
            raise ForeignFileError("it is encrypted, which torch.save never does")
        if self.entry("byteorder", b"little") != b"little":
            raise ForeignFileError("its numbers are stored big-endian; save it again on a usual machine")

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def entry(self, name: str, default: bytes | None = None) -> bytes:
        """Return an entry's bytes."""
        info = self.entries.get(self.root + name)
        if info is None:
            if default is None:
                raise ForeignFileError(f"its entry {name} is missing")
            return default
        return self.file.read(info)

    def description(self) -> bytes:
        """Return the pickle."""
        return self.entry("data.pkl")

    def block(self, key: str) -> bytearray:
        """Return a block of numbers, read once however many tensors lie in it."""
        if key not in self.blocks:
            self.blocks[key] = bytearray(self.entry(f"data/{key}"))
        return self.blocks[key]

    def tensor(self, ref: TensorRef) -> Tensor:
        """Return a tensor of its own memory, floating ones in float32."""
        dtype = DTYPES.get(ref.storage.kind)
        if dtype is None:
            raise ForeignFileError(f"it holds numbers of type {ref.storage.kind}, which no weights have")
        count = math.prod(ref.size)
        last = ref.offset + sum((n - 1) * step for n, step in zip(ref.size, ref.stride, strict=True))
        self.budget -= count
        if count > ref.storage.numel or (count and last >= ref.storage.numel) or self.budget < 0:
            raise ForeignFileError("a tensor in it reaches beyond its numbers")
        data = self.block(ref.storage.key)
        if len(data) != ref.storage.numel * dtype.itemsize:
            raise ForeignFileError(f"its block of numbers {ref.storage.key} has another length than stated")
        if not count:
            flat = torch.empty(0, dtype=dtype)
        else:
            flat = torch.frombuffer(data, dtype=dtype)
        view = flat.as_strided(ref.size, ref.stride, ref.offset)
        return view.to(torch.float32, copy=True) if dtype.is_floating_point else view.clone()


def open_archive(path: Path) -> Archive:
    """Open a file whose first bytes say that it is a zip archive; anything else is named.

    Raises:
        ForeignFileError: what it is instead.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if not start.startswith(b"PK\x03\x04"):
        raise ForeignFileError(what_it_is(start))
    return Archive(zipfile.ZipFile(path), path.stat().st_size)


def what_it_is(start: bytes) -> str:
    """Say what a file is that begins with these bytes and is no zip archive."""
    text = start.lstrip().lower()
    if not start:
        return "it is empty; the download or the disk failed"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is a web page, not weights: the download was answered with an error page; fetch it again"
    if text.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the weights; run `git lfs pull`"
    if text.startswith((b"{", b"%yaml", b"nc:", b"#")):
        return "it is text, not weights"
    if start[:1] == b"\x80":
        return "it is a plain pickle, not an archive of torch.save; save it again with torch 1.6 or later"
    if b"onnx" in text or b"pytorch" in text or start[:1] == b"\x08":
        return "it seems to be an ONNX model, not weights; use the .pt file that it was exported from"
    return "it is no archive of torch.save"


# -- the network in it -------------------------------------------------------------------------------------------------
def find_network(content: Any) -> Stub:
    """Return the detector of a checkpoint: the averaged one if there is one.

    Raises:
        ForeignFileError: there is none, or it does something else than detect.
    """
    if not isinstance(content, dict) or not {"ema", "model"} & set(content):
        raise ForeignFileError("it holds no 'model' and no 'ema', as checkpoints of the incumbent do")
    network = content.get("ema") if content.get("ema") is not None else content.get("model")
    if not isinstance(network, Stub):
        raise ForeignFileError("it holds tensors without the network they belong to; name a model and use pretrained=")
    layers = list(children(next((m for name, m in children(network) if name == "model"), None)))
    head = layers[-1][1].cls.name if layers else "nothing"
    if head in HEADS:
        return network
    task = network.attributes.get("task")
    kind = f"it is for the task {task!r}, and Eyas detects" if isinstance(task, str) and task != "detect" else ""
    raise ForeignFileError(
        kind or f"its network {network.cls} ends in {head}, not in a detection head ({' or '.join(HEADS)})"
    )


def children(module: Any) -> Iterator[tuple[str, Stub]]:
    """Yield the modules directly inside a module, by name."""
    inner = module.attributes.get("_modules") if isinstance(module, Stub) else None
    for name, child in inner.items() if isinstance(inner, dict) else ():
        if isinstance(child, Stub) and isinstance(name, str):
            yield name, child


def network_tensors(network: Stub) -> Iterator[tuple[str, TensorRef]]:
    """Yield keys and tensors in the order of ``state_dict()``.

    Raises:
        ForeignFileError: the modules nest, or their tensors repeat, without end.
    """
    visited, found = itertools.count(), itertools.count(1)

    def walk(module: Stub, prefix: str, depth: int) -> Iterator[tuple[str, TensorRef]]:
        if depth > DEPTH or next(visited) > MODULES:
            raise ForeignFileError("the modules in it nest without end")
        for entry in own_tensors(module, prefix):
            if next(found) > VALUES:
                raise ForeignFileError("the tensors in it repeat without end")
            yield entry
        for name, child in children(module):
            yield from walk(child, f"{prefix}{name}.", depth + 1)

    return walk(network, "", 0)


def own_tensors(module: Stub, prefix: str) -> Iterator[tuple[str, TensorRef]]:
    """Yield a module's own parameters, then its buffers that belong to the state."""
    unsaved = module.attributes.get("_non_persistent_buffers_set")
    unsaved = unsaved if isinstance(unsaved, list) else []
    for kind in ("_parameters", "_buffers"):
        found = module.attributes.get(kind)
        for name, value in found.items() if isinstance(found, dict) else ():
            if isinstance(value, TensorRef) and not (kind == "_buffers" and name in unsaved):
                yield f"{prefix}{name}", value


# -- the description ---------------------------------------------------------------------------------------------------
def describe(content: dict[Any, Any], network: Stub, state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the checkpoint; plain values and tensors only."""
    attributes = network.attributes
    table = plain(attributes.get("yaml"), "its table of layers")
    if not isinstance(table, dict):
        raise ForeignFileError("its table of layers is missing")
    if not any(".bn." in key for key in state):
        raise ForeignFileError("its normalisation was folded into its convolutions; use the file from before that")
    names = class_names(plain(attributes.get("names"), "its class names"))
    nc = attributes.get("nc", table.get("nc"))
    if type(nc) is not int or not 1 <= nc <= CLASSES:
        raise ForeignFileError(f"its number of classes is none from 1 to {CLASSES:,}")
    if names and (len(names) != nc or sorted(names) != list(range(nc))):
        raise ForeignFileError(f"it says to have {nc} classes and names {len(names)}")
    version = content.get("version")
    version = version if isinstance(version, str) else ""  # writing out nested lists could take for ever
    return {
        "eyas": {"format": 0, "version": "", "read_from": f"ultralytics {version}" if version else "ultralytics"},
        "model": state,
        "yaml": table | {"nc": nc},
        "nc": nc,
        "names": names or {i: str(i) for i in range(nc)},
        "train_args": remembered(content.get("train_args"), attributes.get("args")),
        "train_metrics": numbers(content.get("train_metrics")),
    }


def plain(value: Any, what: str) -> Any:
    """Return a value that is plain all through.

    Raises:
        ForeignFileError: something in it is not, or it nests without end.
    """
    visited = itertools.count()

    def copy(item: Any, depth: int) -> Any:
        if depth > DEPTH or next(visited) > VALUES:
            raise ForeignFileError(f"{what} nests without end")
        if item is None or type(item) in (str, int, float, bool):
            return item
        if type(item) is dict:
            return {key: copy(value, depth + 1) for key, value in item.items()}
        if type(item) in (list, tuple):
            return type(item)(copy(value, depth + 1) for value in item)
        kind = item.cls if isinstance(item, Stub) else item if isinstance(item, Name) else type(item).__name__
        raise ForeignFileError(f"{what} holds {kind}, which is no plain value")

    return copy(value, 0)


def class_names(names: Any) -> dict[int, str]:
    """Return names by index, from a list or a mapping; {} when there are none."""
    pairs = names.items() if isinstance(names, dict) else enumerate(names or [])
    try:
        return {int(i): str(name) for i, name in pairs}
    except (TypeError, ValueError, OverflowError):
        raise ForeignFileError("its class names are not numbered") from None


def remembered(*sources: Any) -> dict[str, Any]:
    """Return options of its training that serve as defaults later, from the first source that has any."""
    for source in sources:
        options = source.attributes if isinstance(source, Stub) else source
        if isinstance(options, dict):
            return {name: options[name] for name, kind in REMEMBERED.items() if type(options.get(name)) is kind}
    return {}


def numbers(values: Any) -> dict[str, float]:
    """Return the entries that are numbers; an integer beyond 64 bits is no measurement, and may not fit a float."""
    items = values.items() if isinstance(values, dict) else ()
    small = {key: value for key, value in items if type(value) is not int or value.bit_length() <= 63}
    return {key: float(value) for key, value in small.items() if type(key) is str and type(value) in (int, float)}


def tell_licence(path: Path, content: dict[Any, Any]) -> None:
    """Log what the file says about its licence: weights keep their publisher's terms wherever they are used."""
    licence = content.get("license")
    if isinstance(licence, str) and licence:
        LOGGER.info("%s: its publisher states the licence %s; its terms apply to these weights", path.name, licence)
