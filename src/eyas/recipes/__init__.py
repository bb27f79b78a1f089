"""Recipes: data, not code. Option defaults and automatic choices per model family."""

from eyas.recipes.base import Fitted, OptimizerChoice, Recipe, Situation
from eyas.recipes.deim import DEIM
from eyas.recipes.dfine import DFINE
from eyas.recipes.dino import DINO
from eyas.recipes.rtdetr import RTDETR
from eyas.recipes.yolo26 import YOLO26

__all__ = ["DEIM", "DFINE", "DINO", "RTDETR", "YOLO26", "Fitted", "OptimizerChoice", "Recipe", "Situation"]
