"""How DINO is trained when nothing else is said (spec detr 5.2); docs/recipes.md says what other families do."""

from eyas.recipes.base import Recipe
from eyas.recipes.rtdetr import ADAMW, fit

# 1e-4 is the family's rate for weights that are given; for random ones see RT-DETR's recipe: dino-tiny has 0.6 million
# parameters.
DINO = Recipe(
    short=ADAMW,
    long=ADAMW,
    fine_tune=0.05,
    new_classes=0.05,
    nbs=16,
    cpu_steps=5000,
    fit=fit,
    options={
        "weight_decay": 1e-4,
        "clip_grad_norm": 0.1,
        "schedule": "step",  # a tenth of the rate from 11 of 12 epochs on
        "lrf": 0.1,
        "mosaic": 0.0,
        "box": 2.0,  # GIoU
        "cls": 1.0,  # focal
        "dfl": 5.0,  # L1
        "multi_scale": 0.25,  # 480 to 800 px for 640
    },
)
