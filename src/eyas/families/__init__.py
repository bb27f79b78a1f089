"""Families of models: one file for each, and the registry that everybody asks.

from eyas.families import Family, register

register(Family("mine", detectors=(MyDetector,), trainer=MyTrainer))
"""

from eyas.families.family import Family
from eyas.families.registry import families, family_of, register

__all__ = ["Family", "families", "family_of", "register"]
