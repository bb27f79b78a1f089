"""Learning-rate schedules as pure functions of progress, and the one place that writes rates into an optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer

from eyas.log import LOGGER

# Keys of an optimizer's groups, plain numbers that travel with its state. Who sets a rate between two steps means it:
# its ratio to what was written becomes a factor on all that follow. A momentum that was set stays.
BY_HAND = "lr_by_hand"
SCHEDULED = "scheduled_lr"  # without that factor
WRITTEN_RATE, WRITTEN_MOMENTUM = "written_lr", "written_momentum"

Schedule = Callable[[float, float], float]


def linear(x: float, final: float) -> float:
    """Multiplier that falls in a line from 1 at ``x=0`` to ``final`` at ``x=1``."""
    return max(1.0 - x, 0.0) * (1.0 - final) + final


def cosine(x: float, final: float) -> float:
    """Multiplier that falls along half a cosine from 1 at ``x=0`` to ``final`` at ``x=1``."""
    return (1.0 - math.cos(math.pi * min(x, 1.0))) / 2 * (final - 1.0) + 1.0


def flat_cosine(x: float, final: float, flat: float = 0.5, end: float = 1.0) -> float:
    """Multiplier that stays 1 for the first ``flat`` share of the run, then falls along half a cosine (DEIM).

    It has reached ``final`` at the share ``end``, and stays there.
    """
    return cosine(max(x - flat, 0.0) / (end - flat), final)


def step(x: float, final: float, at: float = 11 / 12) -> float:
    """Multiplier that stays 1 for the share ``at`` of the run, and is ``final`` from then on (DINO)."""
    return 1.0 if x < at else final


def constant(x: float, final: float) -> float:
    """Multiplier of a rate that something else changes: 1."""
    return 1.0


SCHEDULES: dict[str, Schedule] = {
    "linear": linear,
    "cosine": cosine,
    "flat-cosine": flat_cosine,
    "step": step,
    "constant": constant,
}


def check_base_rates(optimizer: Optimizer) -> None:
    """Refuse an optimizer, or a group of one, that has come after the set-up: nobody knows what its rates fall from.

    Raises:
        ValueError: says where to build it.
    """
    if any("initial_lr" not in group for group in optimizer.param_groups):
        raise ValueError(
            f"the optimizer ({type(optimizer).__name__}) was replaced, or was given a group of parameters, after the "
            "set-up: schedule and warm-up know no base rate of it. Return it from an override of build_optimizer() of "
            "the trainer, or give optimizer= and lr0=; a group added later needs its own 'initial_lr'."
        )


def take_over_changes(optimizer: Optimizer) -> None:
    """Make every rate that somebody has set since `note_rates` a factor of its group, and say so the first time.

    Raises:
        ValueError: the schedule is at 0, so that the rate that was set is no multiple of it.
    """
    groups = optimizer.param_groups
    changed = [group for group in groups if group["lr"] != group.get(WRITTEN_RATE, group["lr"])]
    if not changed:
        return
    is_first = not any(BY_HAND in group for group in groups)
    for group in changed:
        group[BY_HAND] = factor_of_change(group)
    if is_first:
        factors = ", ".join(f"x {factor:.4g}" for factor in dict.fromkeys(map(by_hand, changed)))
        LOGGER.info(
            "Learning rates of %d of %d groups were set by hand: the schedule goes on with %s (effects.json keeps "
            "count; adjust_rates() of a Callback sets the rates of single steps).",
            len(changed),
            len(groups),
            factors,
        )


def factor_of_change(group: Mapping[str, Any]) -> float:
    """Return the factor on a group's scheduled rates that gives the one which was set."""
    now, written, scheduled = float(group["lr"]), group[WRITTEN_RATE], group.get(SCHEDULED, 0.0)
    if written:
        return by_hand(group) * now / written
    if scheduled:
        return now / scheduled
    raise ValueError(
        f"the learning rate of {group.get('name', 'a group')} was 0 and has been set to {now:g}, and no factor on the "
        "schedule gives that. Return the rates you want from adjust_rates() of a Callback."
    )


def note_rates(optimizer: Optimizer) -> None:
    """Remember the rates of this step, after everybody whose part it is has adjusted them."""
    for group in optimizer.param_groups:
        group[WRITTEN_RATE] = group["lr"]


def by_hand(group: Mapping[str, Any]) -> float:
    """Return the factor that was set by hand on a group's rates, 1 without any."""
    return float(group.get(BY_HAND, 1.0))


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

    Rates are multiplied by what was set by hand, see `take_over_changes`; a momentum so set is left alone.

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
        group[SCHEDULED] = start + (target - start) * warm
        group["lr"] = group[SCHEDULED] * by_hand(group)
        if "momentum" in group and group["momentum"] == group.get(WRITTEN_MOMENTUM, group["momentum"]):
            group["momentum"] = group[WRITTEN_MOMENTUM] = warm_momentum + (momentum - warm_momentum) * warm
