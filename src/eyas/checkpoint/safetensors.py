"""Weights as safetensors: a table of tensors, then their bytes, and no code that could run.

A file begins with eight bytes, the length of a JSON object; it has an entry for every tensor, and texts under
``__metadata__``. https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyas.checkpoint.errors import CheckpointError
from eyas.files import opened, replacing

LENGTH = struct.Struct("<Q")
LONGEST = 100_000_000  # bytes of a header, as the format's own library has it
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
SUFFIX = ".safetensors"
DESCRIPTION = "eyas"  # the text that holds all of a checkpoint but its tensors


class SafeTensorsError(CheckpointError):
    """A file is none of this format, cut off, or holds no model of Eyas."""


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write tensors and texts by name, as one file that is there whole or not at all."""
    header: dict[str, Any] = {"__metadata__": dict(texts)}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    table = json.dumps(header).encode()
    table += b" " * (-len(table) % 8)  # tensors begin at multiples of their size
    with replacing(path) as file:
        file.write(LENGTH.pack(len(table)) + table)
        for tensor in tensors.values():
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and texts by name.

    Raises:
        SafeTensorsError: the file is none of this format, or cut off.
    """
    with opened(path) as file:
        held = file.read()
    try:
        length = LENGTH.unpack_from(held)[0]
        if length > min(LONGEST, len(held) - LENGTH.size):
            raise ValueError("it is cut off, or of another format")
        header = json.loads(held[LENGTH.size : LENGTH.size + length])
        texts = dict(header.pop("__metadata__", {}))
        data = memoryview(held)[LENGTH.size + length :]
        return {name: one_tensor(entry, data) for name, entry in header.items()}, texts
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise SafeTensorsError(f"{path} is no file of safetensors: {error}") from error


def one_tensor(entry: Mapping[str, Any], data: memoryview) -> Tensor:
    """Return the tensor of an entry of the table.

    Raises:
        ValueError: its bytes are not there, or not as many as its shape needs.
    """
    dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    count = math.prod(shape)
    if not 0 <= begin <= end <= len(data) or end - begin != count * dtype.itemsize:
        raise ValueError(f"a tensor of shape {shape} does not lie at bytes {begin} to {end} of {len(data)}")
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data[begin:end]), dtype=dtype).reshape(shape)


def described(checkpoint: Mapping[str, Any]) -> str:
    """Return all of a checkpoint but its tensors, as text."""
    return json.dumps({key: value for key, value in checkpoint.items() if key != "model"})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint from a file of safetensors.

    Raises:
        SafeTensorsError: it is none of this format, or holds weights without the description that Eyas writes.
    """
    tensors, texts = read_safetensors(path)
    if DESCRIPTION not in texts:
        raise SafeTensorsError(f"{path} holds {len(tensors)} tensors and no description of a model: not by Eyas.")
    # JSON knows no numbers as keys; classes have them.
    checkpoint = json.loads(texts[DESCRIPTION], object_pairs_hook=with_numbers)
    return checkpoint | {"model": tensors}


def with_numbers(pairs: list[tuple[str, Any]]) -> dict[Any, Any]:
    """Return a mapping whose keys of digits are numbers."""
    return {int(key) if key.isdecimal() else key: value for key, value in pairs}
