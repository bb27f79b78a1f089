"""Copying weights into a model that may differ in classes, input channels or shapes (spec core C.8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eyas.checkpoint import CheckpointError
from eyas.checkpoint.finite import not_finite
from eyas.names import a_few

Names = Mapping[int, str]


@dataclass(frozen=True)
class Source:
    """Weights to copy from, and the class names they were trained with (None when unknown)."""

    state: dict[str, Tensor]
    names: dict[int, str] | None


def as_source(weights: nn.Module | Mapping[str, Any]) -> Source:
    """Read a module, a state dict, or a checkpoint {"ema" or "model": module or state dict, "names": ...}.

    Raises:
        ValueError: there are no tensors in it.
    """
    names = _names_of(weights)
    inner: Any = weights
    if isinstance(weights, Mapping) and not _is_state(weights):
        inner = weights.get("ema") if weights.get("ema") is not None else weights.get("model")
        names = names or _names_of(inner)
    state = inner.state_dict() if isinstance(inner, nn.Module) else inner
    if not isinstance(state, Mapping) or not _is_state(state):
        raise ValueError(
            "these weights hold no tensors: pass a model, a state dict, or a checkpoint with 'model' or 'ema' in it"
        )
    return Source({k: v for k, v in state.items() if isinstance(v, Tensor)}, names)


def plain_state(content: object) -> dict[str, Tensor] | None:
    """Return the tensors by name in what a file holds, the averaged ones first: ``ema.module``, ``ema``, ``model``.

    None if there are none.
    """
    if not isinstance(content, Mapping):
        return None
    for key in ("ema", "module", "model", "state_dict"):
        if isinstance(inner := content.get(key), Mapping):
            return plain_state(inner)
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)} or None


def check_numbers(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Refuse weights that a model cannot compute with.

    Raises:
        CheckpointError: one is not of the kind that its tensor in the model is, or not finite where that is.
    """
    both = {key: state[key] for key in target if key in state}
    for key, value in both.items():
        if _kind(value) != _kind(target[key]):
            raise CheckpointError(f"its {key} is {value.dtype}, and that of the model {target[key].dtype}: no weights")
    broken = [key for key in not_finite(both) if bool(target[key].isfinite().all()) or bool(both[key].isnan().any())]
    if broken:
        raise CheckpointError(f"its weights are nan or infinite ({a_few(broken, 1)}): use an earlier checkpoint")


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex()


def _is_state(value: Mapping[str, Any]) -> bool:
    return any(isinstance(v, Tensor) for v in value.values())


def _names_of(value: Any) -> dict[int, str] | None:
    names = value.get("names") if isinstance(value, Mapping) else getattr(value, "names", None)
    if isinstance(names, Mapping):
        return {int(k): str(v) for k, v in names.items()}
    return dict(enumerate(map(str, names))) if isinstance(names, (list, tuple)) else None


def real_names(names: Names | None) -> bool:
    """Whether names were given by a person, and are not the placeholders "0", "1", ..."""
    return bool(names) and any(str(v) != str(k) for k, v in names.items())  # type: ignore[union-attr]


def class_rows(source: Names | None, target: Names | None) -> list[tuple[int, int]] | None:
    """Return pairs (target row, source row) of classes with one name, or None when rows need no remapping.

    Names are compared trimmed and without case. Without real names on both sides, or with the same order, rows stay;
    but where classes have been added to placeholders, those of before keep their rows: "3" of five is "3" of ten.
    """
    if not source or not target or real_names(source) != real_names(target):
        return None
    if not real_names(target) and len(target) < len(source):
        return None
    old = {i: n.strip().lower() for i, n in source.items()}
    new = {i: n.strip().lower() for i, n in target.items()}
    if old == new:
        return None
    by_name = {name: i for i, name in reversed(old.items())}
    return [(i, by_name[name]) for i, name in new.items() if name in by_name]


@torch.no_grad()
def copy_state(
    target: dict[str, Tensor],
    source: Mapping[str, Tensor],
    *,
    class_keys: frozenset[str] = frozenset(),
    rows: list[tuple[int, int]] | None = None,
    first_conv: str = "",
) -> list[str]:
    """Copy in place what fits, and return the keys that were copied, wholly or in part.

    Same key and same shape: copied. ``class_keys`` are copied row by row when ``rows`` is given. ``first_conv`` may
    differ in input channels: the overlapping ones are copied, and for one-channel input the sum over channels.
    """
    copied = []
    for key, tensor in target.items():
        value = source.get(key)
        if value is None:
            continue
        if key in class_keys and rows is not None:
            if value.shape[1:] != tensor.shape[1:] or not rows:
                continue
            into, out_of = zip(*rows, strict=True)
            tensor[list(into)] = value[list(out_of)].to(tensor.device, tensor.dtype)
        elif value.shape == tensor.shape:
            tensor.copy_(value)
        elif key == first_conv and _differs_in_channels_only(tensor, value):
            shared = min(tensor.shape[1], value.shape[1])
            tensor[:, :shared] = (value.sum(1, keepdim=True) if tensor.shape[1] == 1 else value[:, :shared]).to(tensor)
        else:
            continue
        copied.append(key)
    return copied


def _differs_in_channels_only(a: Tensor, b: Tensor) -> bool:
    return a.ndim == b.ndim == 4 and a.shape[0] == b.shape[0] and a.shape[2:] == b.shape[2:]
