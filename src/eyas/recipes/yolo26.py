"""How YOLO26 is trained when nothing else is said."""

from eyas.recipes.base import Fitted, OptimizerChoice, Recipe, Situation
from eyas.recipes.mirrors import mirrored_classes

STRONG_FROM = 30  # epochs from which composing and zooming images teaches more than it confuses


def fit(situation: Situation) -> Fitted:
    """Fit options: weak augmentation where no image is seen often enough to be known by heart; no mirrored letters."""
    fitted: Fitted = {}
    if situation.epochs < STRONG_FROM:
        why = f"auto: too few epochs to profit from more, fewer than {STRONG_FROM}"
        fitted |= {"mosaic": (0.0, why), "scale": (0.2, why)}
    if reason := mirrored_classes(situation.names):
        fitted |= {"fliplr": (0.0, f"auto: {reason}")}
    return fitted


YOLO26 = Recipe(
    short=OptimizerChoice("AdamW", lr0=0.004, momentum=0.9, images=16),
    long=OptimizerChoice("MuSGD", lr0=0.01, momentum=0.9),
    fit=fit,
)
