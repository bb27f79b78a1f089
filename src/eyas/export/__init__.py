"""Models for other runtimes: one file for each target, and the validator that measures what it wrote.

from eyas.export import Card, Exported, ExportTarget

YOLO("best.pt").export(format="onnx")     # a stock target by its name
YOLO("best.pt").export(format=MyTarget()) # or your own
YOLO("best.onnx").val()                   # what was written is measured and used like a checkpoint
"""

from eyas.export.base import BoxModel, Card, Exported, ExportError, ExportTarget
from eyas.export.registry import STOCK, file_names, find_target, known_targets, open_exported, settings_of, target_of
from eyas.export.verify import export

__all__ = [
    "STOCK",
    "BoxModel",
    "Card",
    "ExportError",
    "ExportTarget",
    "Exported",
    "export",
    "file_names",
    "find_target",
    "known_targets",
    "open_exported",
    "settings_of",
    "target_of",
]
