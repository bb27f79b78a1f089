"""How YOLO26 is trained when nothing else is said; docs/recipes.md holds what was measured."""

from eyas.recipes.base import Fitted, OptimizerChoice, Recipe, Situation
from eyas.recipes.fit import is_short, unmirrored, weak_if_short

USUAL_CLS, MOST_CLS = 0.5, 2.0  # gain of the class loss: the usual one, and that of a short run with many classes
FEW_CLASSES = 3  # that the usual gain suits, however short the run


def fit(situation: Situation) -> Fitted:
    """Fit options of augmentation and loss to data and length."""
    return weak_if_short(situation) | class_gain(situation) | unmirrored(situation)


def class_gain(situation: Situation) -> Fitted:
    """Fit the gain of the class loss: in a short run from nothing, many classes are told apart later than found."""
    classes = len(situation.names)
    gain = min(USUAL_CLS * classes / FEW_CLASSES, MOST_CLS)
    if not (is_short(situation) and situation.from_scratch and gain > USUAL_CLS):
        return {}
    return {"cls": (round(gain, 2), f"auto: {classes} classes in a short run from random weights")}


YOLO26 = Recipe(
    short=OptimizerChoice("AdamW", lr0=0.004, momentum=0.9, images=16),
    long=OptimizerChoice("MuSGD", lr0=0.01, momentum=0.9),
    fit=fit,
)
