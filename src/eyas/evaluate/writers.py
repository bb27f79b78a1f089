"""Files with a split's detections: COCO's results layout, and one text file per image."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from eyas.data.formats import Numbers
from eyas.evaluate.boxlist import Split
from eyas.metrics.coco import ltwh
from eyas.metrics.detection import shortest_unique_names


def write_predictions_json(split: Split, path: Path, numbers: Numbers | None = None) -> Path:
    """Write the rows of `prediction_rows`."""
    path.write_text(json.dumps(prediction_rows(split, numbers)), encoding="utf-8")
    return path


def prediction_rows(split: Split, numbers: Numbers | None = None) -> list[dict[str, Any]]:
    """Return a list of {image_id, file_name, category_id, bbox [left, top, width, height] in pixels, score}.

    `image_id` is the file name without its suffix, as a number where all of the split's are numbers, as COCO's are;
    where two images would have the same, it is `file_name`, with the folders in front that tell them apart.
    `category_id` is the class id of the data set, from 0. Where the labels are of COCO's form, both are the ids of that
    file, `numbers`, so that others can measure against it.
    """
    names = shortest_unique_names(split.files)
    ids = image_ids([Path(file).stem for file in split.files], names)
    if numbers is not None:
        ids = [numbers.images.get(file, name) for file, name in zip(split.files, names, strict=True)]
    categories = {} if numbers is None else numbers.classes
    found = split.predicted
    return [
        {
            "image_id": ids[i],
            "file_name": names[i],
            "category_id": categories.get(cls, cls),
            "bbox": [round(value, 3) for value in box],
            "score": round(score, 5),
        }
        for i, cls, box, score in zip(
            found.image.tolist(), found.cls.tolist(), ltwh(found.boxes).tolist(), found.score.tolist(), strict=True
        )
    ]


def image_ids(stems: Sequence[str], names: Sequence[str]) -> Sequence[int | str]:
    """Return an id of its own for each image: its stem as a number, or its stem, or its unique name."""
    if all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(stems):
        return [int(stem) for stem in stems]
    return stems if len(set(stems)) == len(stems) else names


def write_label_files(split: Split, folder: Path, *, with_score: bool) -> None:
    """Write one text file per image, also for those without detections: class cx cy w h [score], normalised.

    A file is named after its image, `street.txt`; images of the same name are told apart by their parent folders, and
    by their suffixes, `street.png.txt`.
    """
    found = split.predicted
    x1, y1, x2, y2 = (found.boxes / np.maximum(np.tile(split.size, 2), 1)[found.image]).T
    rows = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, found.score][: 5 if with_score else 4], axis=1)
    lines: list[list[str]] = [[] for _ in split.files]
    for i, cls, values in zip(found.image.tolist(), found.cls.tolist(), rows.tolist(), strict=True):
        lines[i].append(" ".join([str(cls), *(f"{value:.6g}" for value in values)]))
    names = [PurePath(name.lstrip("/")) for name in shortest_unique_names(split.files)]
    twins = Counter(name.with_suffix("") for name in names)
    for name, text in zip(names, lines, strict=True):
        alone = twins[name.with_suffix("")] == 1
        path = folder / (name.with_suffix(".txt") if alone else name.with_name(f"{name.name}.txt"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line + "\n" for line in text), encoding="utf-8")
