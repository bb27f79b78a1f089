"""Losses of elements, and the criteria that compose them. A loss sees predictions and a batch, never a model."""

from eyas.losses.class_weighting import weight_classes
from eyas.losses.criterion import Criterion
from eyas.losses.dense import DenseCriterion
from eyas.losses.elementwise import (
    bce_loss,
    ciou_loss,
    dfl_loss,
    focal_loss,
    l1_loss,
    matchability_loss,
    varifocal_loss,
)
from eyas.losses.end_to_end import EndToEndCriterion
from eyas.losses.fine import FineCriterion, LateCriterion
from eyas.losses.focal_set import FocalSetCriterion
from eyas.losses.points import anchor_points
from eyas.losses.set_criterion import SetCriterion

__all__ = [
    "Criterion",
    "DenseCriterion",
    "EndToEndCriterion",
    "FineCriterion",
    "FocalSetCriterion",
    "LateCriterion",
    "SetCriterion",
    "anchor_points",
    "bce_loss",
    "ciou_loss",
    "dfl_loss",
    "focal_loss",
    "l1_loss",
    "matchability_loss",
    "varifocal_loss",
    "weight_classes",
]
