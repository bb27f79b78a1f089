"""How D-FINE is trained when nothing else is said (spec detr 2.6); docs/recipes.md holds what was measured."""

from eyas.recipes.base import Recipe
from eyas.recipes.rtdetr import ADAMW, SET_OPTIONS, fit

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
    options=SET_OPTIONS,
)
