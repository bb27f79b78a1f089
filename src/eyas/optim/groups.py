"""Sort a model's parameters into named groups; every parameter ends in exactly one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import nn

Key = TypeVar("Key")

# Every normalisation layer of torch, by class: their scales take no weight decay (spec core B.5).
NORMS = tuple(v for k, v in vars(nn).items() if isinstance(v, type) and "Norm" in k)


@runtime_checkable
class HasUndecayed(Protocol):
    """A module that names those of its own parameters that are no matrices and take no weight decay."""

    undecayed: frozenset[str]


def parameter_kind(name: str, module: nn.Module, ndim: int, muon: bool) -> str:
    """Return ``"muon"``, ``"bias"``, ``"bn"`` or ``"weight"`` for a parameter; the first rule that fits wins.

    Args:
        name: the parameter's own name inside its module.
        module: the module that owns it.
        ndim: its number of dimensions.
        muon: whether matrices and filters take orthogonalised steps.
    """
    if isinstance(module, HasUndecayed) and name in module.undecayed:
        return "bn"
    if muon and ndim in (2, 4):
        return "muon"
    if name.endswith("bias"):
        return "bias"
    if isinstance(module, NORMS) or name == "logit_scale":
        return "bn"
    return "weight"


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    decay: float,
    muon: bool = False,
    boost: tuple[str, ...] = (),
    boost_factor: float = 3.0,
) -> list[dict[str, Any]]:
    """Return optimizer groups ``weight, bn, bias`` (and ``muon``); only ``weight`` and ``muon`` decay.

    Frozen parameters are included, so that unfreezing needs no change of the optimizer (architecture trap 4). A
    parameter that several modules share is sorted by the first of them.

    Args:
        model: the unwrapped model.
        lr: base learning rate, stored in every group.
        decay: weight decay of the decaying groups.
        muon: put matrices and filters into groups labelled ``muon``.
        boost: name prefixes whose parameters learn ``boost_factor`` times faster (MuSGD: the class branches).
        boost_factor: that factor.

    Returns:
        Groups with keys ``params, lr, weight_decay, param_group`` (kind) and ``name``; empty groups are left out.
    """
    sorted_params: dict[str, list[nn.Parameter]] = {}
    seen: set[int] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            kind = parameter_kind(name, module, parameter.ndim, muon)
            boosted = f"{module_name}.".startswith(boost) if boost else False
            sorted_params.setdefault(f"{kind}.boosted" if boosted else kind, []).append(parameter)
    groups = []
    for kind in ("weight", "bn", "bias", "muon"):
        for key, factor in ((kind, 1.0), (f"{kind}.boosted", boost_factor)):
            if key in sorted_params:
                decays = decay if kind in ("weight", "muon") else 0.0
                groups.append(
                    {
                        "params": sorted_params[key],
                        "lr": lr * factor,
                        "weight_decay": decays,
                        "param_group": kind,
                        "name": key,
                    }
                )
    return groups


def split_groups(
    groups: list[dict[str, Any]], key_of: Callable[[nn.Parameter], Key]
) -> list[tuple[Key, dict[str, Any]]]:
    """Split optimizer groups until all parameters of one have the same key; every parameter stays in exactly one.

    Args:
        groups: as ``parameter_groups`` makes them, or anyone's; they are not changed.
        key_of: key of a parameter, hashable.

    Returns:
        ``(key, group)`` in order of first appearance inside each group; all other entries of a group are copied, and
        the order of parameters is kept.
    """
    found: list[tuple[Key, dict[str, Any]]] = []
    for group in groups:
        parts: dict[Key, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            parts.setdefault(key_of(parameter), []).append(parameter)
        found += [(key, {**group, "params": params}) for key, params in parts.items()]
    return found
