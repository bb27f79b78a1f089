"""Parameter groups by rule, optimizers, schedules as functions of progress, and the weight average."""

from eyas.optim.ema import ModelEMA
from eyas.optim.groups import parameter_groups
from eyas.optim.musgd import MuSGD
from eyas.optim.optimizers import build_optimizer, check_groups, optimizer_names
from eyas.optim.schedules import SCHEDULES, apply_schedule, cosine, flat_cosine, linear

__all__ = [
    "SCHEDULES",
    "ModelEMA",
    "MuSGD",
    "apply_schedule",
    "build_optimizer",
    "check_groups",
    "cosine",
    "flat_cosine",
    "linear",
    "optimizer_names",
    "parameter_groups",
]
