"""How DINO is trained when nothing else is said (spec detr 5.2); docs/recipes.md says what other families do."""

from eyas.recipes.base import Recipe
from eyas.recipes.rtdetr import ADAMW, SET_OPTIONS, fit

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
        **SET_OPTIONS,
        "schedule": "step",  # a tenth of the rate from 11 of 12 epochs on
        "lrf": 0.1,
        "mosaic": 0.0,
    },
)
