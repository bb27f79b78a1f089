"""How YOLO26 is trained when nothing else is said."""

from eyas.recipes.base import OptimizerChoice, Recipe

YOLO26 = Recipe(
    short=OptimizerChoice("AdamW", lr0=0.004, momentum=0.9),
    long=OptimizerChoice("MuSGD", lr0=0.01, momentum=0.9),
)
