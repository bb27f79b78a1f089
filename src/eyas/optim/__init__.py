"""Parameters chosen by name, groups by rule, optimizers, schedules as functions of progress, and the weight average."""

from eyas.nn.unwrap import unwrap_model
from eyas.optim.ema import ModelEMA, PowerAverage
from eyas.optim.gradient_norms import GradientNorms
from eyas.optim.groups import parameter_groups, split_groups
from eyas.optim.musgd import MuSGD
from eyas.optim.optimizers import build_optimizer, check_groups, optimizer_names
from eyas.optim.schedules import (
    SCHEDULES,
    apply_schedule,
    by_hand,
    check_base_rates,
    cosine,
    flat_cosine,
    linear,
    note_rates,
    take_over_changes,
)
from eyas.optim.select import Selector, depths, select

__all__ = [
    "SCHEDULES",
    "GradientNorms",
    "ModelEMA",
    "MuSGD",
    "PowerAverage",
    "Selector",
    "apply_schedule",
    "build_optimizer",
    "by_hand",
    "check_base_rates",
    "check_groups",
    "cosine",
    "depths",
    "flat_cosine",
    "linear",
    "note_rates",
    "optimizer_names",
    "parameter_groups",
    "select",
    "split_groups",
    "take_over_changes",
    "unwrap_model",
]
