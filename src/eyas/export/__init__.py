"""Models for other runtimes: one file for each target, and the validator that measures what it wrote.

from eyas.export import Card, Exported, ExportTarget

YOLO("best.pt").export(target="pt2")      # a stock target by its name
YOLO("best.pt").export(target=MyTarget()) # or your own
"""

from eyas.export.base import BoxModel, Card, Exported, ExportError, ExportTarget
from eyas.export.registry import STOCK, find_target
from eyas.export.verify import export

__all__ = ["STOCK", "BoxModel", "Card", "ExportError", "ExportTarget", "Exported", "export", "find_target"]
