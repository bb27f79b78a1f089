"""Recipes: data, not code. Option defaults and automatic choices per model family."""

from eyas.recipes.base import OptimizerChoice, Recipe
from eyas.recipes.rtdetr import RTDETR
from eyas.recipes.yolo26 import YOLO26

__all__ = ["RTDETR", "YOLO26", "OptimizerChoice", "Recipe"]
