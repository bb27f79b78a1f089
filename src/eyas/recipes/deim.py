"""How DEIM is trained when nothing else is said (spec detr 3.4); docs/recipes.md holds what was measured."""

from eyas.recipes.base import Fitted, Recipe, Situation
from eyas.recipes.fit import is_short
from eyas.recipes.rtdetr import ADAMW, SET_OPTIONS
from eyas.recipes.rtdetr import fit as fit_set


def fit(situation: Situation) -> Fitted:
    """Fit augmentation to data and length: what makes images dense comes with long runs only."""
    fitted = fit_set(situation)
    if is_short(situation):
        why = fitted["mosaic"][1]
        fitted |= dict.fromkeys(("mixup", "zoom_out", "crop"), (0.0, why))
    return fitted


# Random weights as for RT-DETR; the authors' rates for given ones are 4e-4 for 32 images (on D-FINE) and 2e-4 for 16.
DEIM = Recipe(
    short=ADAMW,
    long=ADAMW,
    fine_tune=0.12,
    new_classes=0.12,
    nbs=32,
    cpu_steps=5000,
    close_mosaic=12,
    close_share=0.14,
    fit=fit,
    options={
        **SET_OPTIONS,
        "schedule": "flat-cosine",
        "lrf": 0.5,
        "mosaic": 0.5,
        "mixup": 0.5,
        "zoom_out": 0.5,
        "crop": 0.8,
    },
)
