"""How RT-DETR is trained when nothing else is said (spec detr 1.9); docs/recipes.md holds what was measured."""

from collections.abc import Mapping

from eyas.recipes.base import Fitted, OptimizerChoice, Recipe, Situation
from eyas.recipes.fit import unmirrored, weak_if_short

# 1e-4 is the family's rate for weights that are given; random ones, backbone included, need more to get going, and
# small networks bear more: 2e-3 is for the 0.75 million parameters of rtdetr-tiny.
ADAMW = OptimizerChoice("AdamW", lr0=2e-3, momentum=0.9, images=16, parameters=0.75)


def fit(situation: Situation) -> Fitted:
    """Fit options of augmentation to data and length."""
    return weak_if_short(situation) | unmirrored(situation)


SET_OPTIONS: Mapping[str, object] = {
    "weight_decay": 1e-4,
    "clip_grad_norm": 0.1,
    "box": 2.0,  # GIoU
    "cls": 1.0,  # varifocal, focal or matchability-aware
    "dfl": 5.0,  # L1
    "multi_scale": 0.25,  # 480 to 800 px for 640
}
"""What every family that predicts a set has in common."""

RTDETR = Recipe(
    short=ADAMW,
    long=ADAMW,
    fine_tune=0.05,
    new_classes=0.05,
    nbs=16,
    cpu_steps=5000,
    fit=fit,
    options=SET_OPTIONS,
)
