"""Tensors of an archive, made from their descriptions once these were held against the numbers that are there."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from eyas.checkpoint.archive import AGAIN, Archive
from eyas.checkpoint.errors import CheckpointError
from eyas.checkpoint.pickled import StorageRef, TensorRef

STORAGES: Final = {
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
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
"""Types by the name of a block of numbers."""
NEWER: Final = {
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}
"""Types that blocks have no name for: the tensor tells."""
SPARE: Final = 1_000_000  # numbers that tensors may have in any file
SHARED: Final = 16  # tensors over one byte that own files may have on average: tied weights, an average not begun yet


class Tensors:
    """The tensors of an archive. Those over one block of numbers share it, as they did when they were saved.

    Args:
        archive: where the numbers are.
        device: where the tensors are to be.
        shared: how often the numbers may be used, on average. No number takes less than a byte.
    """

    def __init__(self, archive: Archive, device: str | torch.device = "cpu", shared: int = SHARED) -> None:
        self.archive = archive
        self.device = torch.device(device)
        self.blocks: dict[str, Tensor] = {}  # by key, uint8; together no larger than the file
        self.made: dict[int, tuple[TensorRef, Tensor]] = {}  # by identity of what describes them, which is kept
        self.budget = archive.size * shared + SPARE

    def make(self, ref: TensorRef) -> Tensor:
        """Return the tensor that is described; the same one each time.

        Raises:
            CheckpointError: it reaches beyond its numbers, or these are missing, or all tensors together are too large.
        """
        self.budget -= math.prod(ref.size)  # each time: whoever asks may copy it
        if self.budget < 0:
            raise CheckpointError("its tensors reach beyond its numbers, or share them without end")
        if id(ref) not in self.made:
            self.made[id(ref)] = (ref, self.over_its_block(ref))
        return self.made[id(ref)][1]

    def over_its_block(self, ref: TensorRef) -> Tensor:
        """Return a fresh tensor over the numbers it is described with."""
        dtype = dtype_of(ref)
        size = bytes_of(ref.storage, dtype)
        count = math.prod(ref.size)
        last = ref.offset + sum((n - 1) * step for n, step in zip(ref.size, ref.stride, strict=True))
        if count and last >= size // dtype.itemsize:
            raise CheckpointError("a tensor in it reaches beyond its numbers")
        block = self.block(ref.storage.key)
        if not size <= block.numel() < size + dtype.itemsize:
            raise CheckpointError(f"its block of numbers {ref.storage.key} has another length than stated; {AGAIN}")
        tensor = torch.empty(0, dtype=dtype, device=self.device)
        tensor.set_(block.untyped_storage(), ref.offset, ref.size, ref.stride)
        learns = ref.requires_grad and (dtype.is_floating_point or dtype.is_complex)  # others have no gradients
        return nn.Parameter(tensor, learns) if ref.is_parameter else tensor.requires_grad_(learns)

    def block(self, key: str) -> Tensor:
        """Return a block of numbers, read once however many tensors lie in it."""
        if key not in self.blocks:
            self.blocks[key] = self.archive.block(f"data/{key}").to(self.device)
        return self.blocks[key]


def dtype_of(ref: TensorRef) -> torch.dtype:
    """Return the type of a tensor's elements.

    Raises:
        CheckpointError: there is none of this name.
    """
    dtype = STORAGES.get(ref.storage.kind) if ref.dtype is None else NEWER.get(ref.dtype)
    if dtype is None:
        raise CheckpointError(f"it holds numbers of the unknown type {(ref.dtype or ref.storage.kind)[:40]!a}")
    return dtype


def bytes_of(storage: StorageRef, dtype: torch.dtype) -> int:
    """Return how many bytes a block of numbers says to have."""
    return storage.numel if storage.kind == "UntypedStorage" else storage.numel * dtype.itemsize
