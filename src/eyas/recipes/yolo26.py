"""How YOLO26 is trained when nothing else is said; docs/recipes.md holds what was measured."""

from eyas.recipes.base import Fitted, OptimizerChoice, Recipe, Situation
from eyas.recipes.mirrors import mirrored_classes

STRONG_EPOCHS, STRONG_STEPS = 30, 600  # from both on, composing and zooming images teaches more than it confuses
USUAL_CLS, MOST_CLS = 0.5, 2.0  # gain of the class loss: the usual one, and that of a short run with many classes
FEW_CLASSES = 3  # that the usual gain suits, however short the run


def fit(situation: Situation) -> Fitted:
    """Fit options: weak augmentation where no image is seen often enough to be known by heart; no mirrored letters."""
    fitted: Fitted = {}
    if situation.epochs < STRONG_EPOCHS or situation.steps < STRONG_STEPS:
        why = f"auto: {situation.epochs} epochs of {situation.steps} steps are too few to profit from more"
        fitted |= {"mosaic": (0.0, why), "scale": (0.2, why)}
        fitted |= class_gain(situation)
    if reason := mirrored_classes(situation.names):
        fitted |= {"fliplr": (0.0, f"auto: {reason}")}
    return fitted


def class_gain(situation: Situation) -> Fitted:
    """Fit the gain of the class loss: in a short run from nothing, many classes are told apart later than found."""
    classes = len(situation.names)
    gain = min(USUAL_CLS * classes / FEW_CLASSES, MOST_CLS)
    if not situation.from_scratch or gain <= USUAL_CLS:
        return {}
    return {"cls": (round(gain, 2), f"auto: {classes} classes in a short run from random weights")}


YOLO26 = Recipe(
    short=OptimizerChoice("AdamW", lr0=0.004, momentum=0.9, images=16),
    long=OptimizerChoice("MuSGD", lr0=0.01, momentum=0.9),
    fit=fit,
)
