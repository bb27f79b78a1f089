"""What families fit alike: augmentation to the length of the run, mirroring to the classes."""

from eyas.recipes.base import Fitted, Situation
from eyas.recipes.mirrors import mirrored_classes

STRONG_EPOCHS, STRONG_STEPS = 30, 600  # from both on, composing and zooming images teaches more than it confuses


def is_short(situation: Situation) -> bool:
    """Whether no image is seen often enough to be known by heart, or there are few steps to learn from more."""
    return situation.epochs < STRONG_EPOCHS or situation.steps < STRONG_STEPS


def weak_if_short(situation: Situation) -> Fitted:
    """Fit augmentation: no mosaic, and little zoom and shift, in a short run."""
    if not is_short(situation):
        return {}
    why = f"auto: epochs={situation.epochs}, {situation.steps} steps: too few to profit from more"
    return {"mosaic": (0.0, why), "scale": (0.1, why), "translate": (0.05, why)}


def unmirrored(situation: Situation) -> Fitted:
    """Fit mirroring: none where a mirrored object is another one."""
    reason = mirrored_classes(situation.names)
    return {} if reason is None else {"fliplr": (0.0, f"auto: {reason}")}
