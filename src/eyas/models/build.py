"""From a name, a file or a table to the class that builds it, and to the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyas.models.catalog import model_table
from eyas.models.detection import DetectionModel
from eyas.models.detector import Detector
from eyas.models.rtdetr.model import RTDETRDetectionModel


def detector_class(table: Mapping[str, Any]) -> type[Detector]:
    """Return the class that builds a table: by its ``arch``, else by the layer of its last row.

    A table that no class can build gets `DetectionModel`, whose message names the row.
    """
    if "arch" in table:
        from eyas.models.rtdetr.official import RTDETRNet  # brings the machinery of downloads, which few need

        return RTDETRNet
    rows = table.get("head") or [[None, None, "", None]]
    layer = rows[-1][2] if isinstance(rows[-1], (list, tuple)) and len(rows[-1]) == 4 else ""
    return RTDETRDetectionModel if layer == "RTDETRDecoder" else DetectionModel


def build_detector(cfg: str | Path | Mapping[str, Any], **settings: Any) -> Detector:
    """Return the model for a name, a YAML file or a table; ``settings`` are those of `Detector`.

    Raises:
        UnknownModelError, ModelTableError: the table cannot be found or built.
    """
    table = model_table(cfg)
    return detector_class(table)(table, **settings)
