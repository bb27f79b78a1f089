"""Optimizers by name: MuSGD and everything in ``torch.optim``."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from eyas.names import a_few, nearest
from eyas.optim.musgd import MuSGD

# One pass over memory instead of a dozen: 6 ms, not 15 (foreach) or 20 (loop), per AdamW step of YOLO26n on a core.
# Not SGD: its fused step fails when some parameters of a group have momentum and others, just thawed, have none yet.
FUSED = ("Adam", "AdamW")


def optimizer_names() -> dict[str, type[Optimizer]]:
    """Return every usable optimizer class by its name, first-order methods of ``torch.optim`` and MuSGD."""
    found = {
        name: cls
        for name, cls in vars(torch.optim).items()
        if isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer
    }
    # LBFGS needs a closure and SparseAdam sparse gradients; torch's Muon takes matrices only (use MuSGD).
    for unusable in ("LBFGS", "SparseAdam", "Muon"):
        found.pop(unusable, None)
    return found | {"MuSGD": MuSGD}


def optimizer_class(name: str) -> type[Optimizer]:
    """Return the optimizer class called ``name``, case-insensitively.

    Raises:
        ValueError: no such optimizer; names the nearest one.
    """
    names = {key.lower(): cls for key, cls in optimizer_names().items()}
    if name.lower() in names:
        return names[name.lower()]
    near = nearest(name.lower(), names)
    hint = f" Did you mean {names[near[0]].__name__!r}?" if near else ""
    known = ", ".join(sorted(cls.__name__ for cls in names.values()))
    raise ValueError(f"optimizer={name!r} is not an optimizer.{hint} Known: auto, {known}.")


def build_optimizer(name: str, groups: list[dict[str, Any]], *, lr: float, momentum: float) -> Optimizer:
    """Build an optimizer over ready-made groups.

    Args:
        name: MuSGD or the name of a ``torch.optim`` class, case-insensitive.
        groups: as ``parameter_groups`` makes them; their own ``lr`` and ``weight_decay`` win.
        lr: base rate.
        momentum: momentum, or the first beta of Adam-like methods.

    Raises:
        ValueError: unknown name.
    """
    cls = optimizer_class(name)
    accepted = inspect.signature(cls).parameters
    kwargs: dict[str, Any] = {"lr": lr}
    if "betas" in accepted:
        kwargs["betas"] = (momentum, 0.999)
    if "momentum" in accepted:
        kwargs["momentum"] = momentum
    if "nesterov" in accepted and cls is not MuSGD:
        kwargs["nesterov"] = momentum > 0
    if cls.__name__ in FUSED:
        kwargs["fused"] = True
    return cls(groups, **kwargs)


def check_groups(model: nn.Module, optimizer: Optimizer) -> None:
    """Stop if a trainable parameter is in no group or in two (architecture trap 4).

    Raises:
        ValueError: names the parameters and says what to do.
    """
    count: dict[int, int] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            count[id(parameter)] = count.get(id(parameter), 0) + 1
    missing = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in count]
    twice = [n for n, p in model.named_parameters() if count.get(id(p), 0) > 1]
    for names, what in ((missing, "are in no optimizer group and would never learn"), (twice, "are in two groups")):
        if names:
            raise ValueError(f"{len(names)} parameters {what}: {a_few(names)}. Check what build_optimizer() returns.")
