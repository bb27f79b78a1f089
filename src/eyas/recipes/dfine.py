"""How D-FINE is trained when nothing else is said (spec detr 2.6); docs/recipes.md holds what was measured."""

from eyas.recipes.base import Recipe
from eyas.recipes.rtdetr import ADAMW, fit

# The authors' rate for weights that are given is 2e-4 for 32 images; random ones, backbone included, need more, as for
# RT-DETR, with which the networks share all but their heads.
DFINE = Recipe(
    short=ADAMW,
    long=ADAMW,
    fine_tune=0.07,
    new_classes=0.07,
    nbs=32,
    cpu_steps=5000,
    fit=fit,
    options={
        "weight_decay": 1e-4,
        "clip_grad_norm": 0.1,
        "box": 2.0,  # GIoU
        "cls": 1.0,  # varifocal
        "dfl": 5.0,  # L1
        "multi_scale": 0.25,  # 480 to 800 px for 640
    },
)
