"""Learning-rate schedules as pure functions of progress, and the one place that writes rates into an optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer

Schedule = Callable[[float, float], float]


def linear(x: float, final: float) -> float:
    """Multiplier that falls in a line from 1 at ``x=0`` to ``final`` at ``x=1``."""
    return max(1.0 - x, 0.0) * (1.0 - final) + final


def cosine(x: float, final: float) -> float:
    """Multiplier that falls along half a cosine from 1 at ``x=0`` to ``final`` at ``x=1``."""
    return (1.0 - math.cos(math.pi * min(x, 1.0))) / 2 * (final - 1.0) + 1.0


def flat_cosine(x: float, final: float, flat: float = 0.5) -> float:
    """Multiplier that stays 1 for the first ``flat`` share of the run, then falls along half a cosine (DEIM)."""
    return cosine(max(x - flat, 0.0) / (1.0 - flat), final)


def constant(x: float, final: float) -> float:
    """Multiplier of a rate that something else changes: 1."""
    return 1.0


SCHEDULES: dict[str, Schedule] = {
    "linear": linear,
    "cosine": cosine,
    "flat-cosine": flat_cosine,
    "constant": constant,
}


def apply_schedule(
    optimizer: Optimizer,
    *,
    multiplier: float,
    warm: float = 1.0,
    bias_lr: float = 0.0,
    warm_momentum: float = 0.8,
    momentum: float = 0.9,
) -> None:
    """Set every group's rate for one step from its own ``initial_lr``, so that ratios between groups are kept.

    Args:
        optimizer: its groups must hold ``initial_lr``.
        multiplier: value of the schedule, 1 at the start of the run.
        warm: share of the warm-up that is done, in (0, 1]; 1 when it is over.
        bias_lr: rate of groups labelled ``bias`` where the warm-up starts, times their ``lr_factor`` if they have one;
            other groups start at 0.
        warm_momentum: momentum where the warm-up starts, for groups that have one.
        momentum: momentum after the warm-up.
    """
    for group in optimizer.param_groups:
        target = group["initial_lr"] * multiplier
        start = bias_lr * group.get("lr_factor", 1.0) if group.get("param_group") == "bias" else 0.0
        group["lr"] = start + (target - start) * warm
        if "momentum" in group:
            group["momentum"] = warm_momentum + (momentum - warm_momentum) * warm
