"""A copy of a run's state in this process's memory, which stays what it is while the run goes on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def snapshot(value: Any) -> Any:
    """Return tensors and plain values as they are now; waits once for each device.

    Tensors that are the same numbers in memory stay so: a file holds them once.

    Args:
        value: tensors and plain values in dictionaries, lists and tuples, as a checkpoint has them.
    """
    return _copy(value, {})


def _copy(value: Any, seen: dict[tuple[object, ...], Tensor]) -> Any:
    if isinstance(value, Tensor):
        key = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if key not in seen:
            seen[key] = value.detach().to("cpu", copy=True, memory_format=torch.preserve_format)
        return seen[key]
    if isinstance(value, dict):
        return {key: _copy(item, seen) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(item, seen) for item in value)
    return value
