"""How two forms of the same code are compared: what goes in and comes out, nested as it may be, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def tensors(nested: object) -> list[Tensor]:
    """Return the tensors in nested mappings, tuples and lists, in their order."""
    if isinstance(nested, Tensor):
        return [nested]
    if isinstance(nested, Mapping):
        nested = tuple(nested.values())
    return [tensor for part in nested for tensor in tensors(part)] if isinstance(nested, tuple | list) else []


def floats(nested: object) -> list[Tensor]:
    """Return the tensors that can be learned from."""
    return [tensor for tensor in tensors(nested) if tensor.requires_grad]


def leaves(nested: Any) -> Any:
    """Return the same values in the same nesting, of which no gradient goes further back."""
    if isinstance(nested, Tensor):
        return nested.detach().requires_grad_(nested.requires_grad)
    if isinstance(nested, Mapping):
        return {key: leaves(value) for key, value in nested.items()}
    if isinstance(nested, tuple | list):
        made = map(leaves, nested)
        return type(nested)(*made) if hasattr(nested, "_fields") else type(nested)(made)
    return nested


def outcome(form: Callable[..., Any], given: Sequence[Any]) -> list[Tensor]:
    """Return the tensors that a form of some code makes of what it is given, and the gradients of the latter."""
    given = leaves(tuple(given))
    made = form(*given)
    learned, taught = floats(made), floats(given)
    if not learned or not taught:
        return tensors(made)
    value = torch.stack([part.float().square().mean() for part in learned]).sum()
    gradients = torch.autograd.grad(value, taught, allow_unused=True, materialize_grads=True)
    return [*(part.detach() for part in tensors(made)), *gradients]


def difference(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Return the largest difference of two ways to make the same, relative to the norm of the second."""
    pairs = zip(some, others, strict=True)
    apart = [((a.float() - b.float()).norm() / b.float().norm().clamp(min=1e-12)).detach() for a, b in pairs]
    return float(torch.stack(apart).max())


def beginning(error: BaseException) -> str:
    """Return how a message begins that may be pages long."""
    return " ".join(str(error).split())[:200] or type(error).__name__
