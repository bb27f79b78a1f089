"""Is what would be saved a number? A file of nan replaces a good one, and nothing could be continued from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eyas.names import a_few


def broken_parts(checkpoint: Mapping[str, Any], unbounded: Collection[str] = ()) -> list[str]:
    """Return what of a checkpoint is nan or infinite, in words; waits once for each device.

    Args:
        checkpoint: its ``model`` and, if it has one, the ``model`` and ``optimizer`` of its ``state``.
        unbounded: names of buffers that hold infinity by design (see `unbounded_buffers`): only nan is wrong in them.
    """
    state = checkpoint.get("state", {})
    weights = state.get("model", checkpoint["model"])
    parts = {
        "the weights": weights,
        "their average": {k: t for k, t in checkpoint["model"].items() if not same_memory(t, weights.get(k))},
        "the state of the optimizer": moments(state.get("optimizer", {})),
    }
    found = []
    for part, tensors in parts.items():
        names = [n for n in not_finite(tensors) if n not in unbounded or bool(tensors[n].isnan().any())]
        if names:
            found.append(f"{part} ({a_few(names, 1)})")
    return found


def same_memory(one: Tensor, other: Tensor | None) -> bool:
    """Whether two tensors are views of the same numbers, as the average of a run without one and its weights are."""
    return other is not None and one.data_ptr() == other.data_ptr()


def moments(optimizer: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors in an optimizer's state, by what they are."""
    return {
        f"{name} of parameter {index}": value
        for index, values in optimizer.get("state", {}).items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return names of floating tensors with nan or infinity; least and largest values tell, and nothing is copied."""
    kinds: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel():
            kinds.setdefault((tensor.device, tensor.dtype), []).append(name)
    found: set[str] = set()
    for names in kinds.values():
        ends = [torch.stack(torch.aminmax(tensors[name].detach())) for name in names]
        finite = torch.stack(ends).isfinite().all(dim=1).tolist()
        found.update(name for name, good in zip(names, finite, strict=True) if not good)
    return [name for name in tensors if name in found]


def unbounded_buffers(model: nn.Module) -> set[str]:
    """Return names of buffers that hold infinity, as masks do, and no nan."""
    buffers = dict(model.named_buffers())
    return {name for name in not_finite(buffers) if not bool(buffers[name].isnan().any())}
