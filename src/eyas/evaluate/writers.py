"""Files with a split's detections: COCO's results layout, and one text file per image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from eyas.evaluate.boxlist import Split
from eyas.metrics.coco import ltwh
from eyas.metrics.detection import shortest_unique_names


def write_predictions_json(split: Split, path: Path) -> Path:
    """Write the rows of `prediction_rows`."""
    path.write_text(json.dumps(prediction_rows(split)), encoding="utf-8")
    return path


def prediction_rows(split: Split) -> list[dict[str, Any]]:
    """Return a list of {image_id, file_name, category_id, bbox [left, top, width, height] in pixels, score}.

    `image_id` is the file name without its suffix, as a number where all of the split's are numbers, as COCO's are.
    `category_id` is the class id of the data set.
    """
    files = [Path(file) for file in split.files]
    numbered = all(file.stem.isdecimal() for file in files)
    found = split.predicted
    return [
        {
            "image_id": int(files[i].stem) if numbered else files[i].stem,
            "file_name": files[i].name,
            "category_id": cls,
            "bbox": [round(value, 3) for value in box],
            "score": round(score, 5),
        }
        for i, cls, box, score in zip(
            found.image.tolist(), found.cls.tolist(), ltwh(found.boxes).tolist(), found.score.tolist(), strict=True
        )
    ]


def write_label_files(split: Split, folder: Path, *, with_score: bool) -> None:
    """Write one text file per image, also for those without detections: class cx cy w h [score], normalised.

    A file is named after its image; images of the same name are told apart by their parent folders.
    """
    found = split.predicted
    x1, y1, x2, y2 = (found.boxes / np.maximum(np.tile(split.size, 2), 1)[found.image]).T
    rows = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, found.score][: 5 if with_score else 4], axis=1)
    lines: list[list[str]] = [[] for _ in split.files]
    for i, cls, values in zip(found.image.tolist(), found.cls.tolist(), rows.tolist(), strict=True):
        lines[i].append(" ".join([str(cls), *(f"{value:.6g}" for value in values)]))
    for name, text in zip(shortest_unique_names(split.files), lines, strict=True):
        path = (folder / name.lstrip("/")).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line + "\n" for line in text), encoding="utf-8")
