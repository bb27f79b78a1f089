"""A COCO data set of three tiny images, and how to read one source without an index."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from eyas.data.files import FileStat
from eyas.data.formats import LabelProblem, Labels, LabelSource
from eyas.data.image_header import ImageHeader, read_header
from eyas.data.report import Problem

SIZES = {"a.png": (30, 40), "b.png": (20, 50), "c.png": (16, 16)}  # height, width


class Read(NamedTuple):
    labels: dict[str, Labels]  # by the file's name
    missing: list[str]
    problems: Counter[str]  # by kind
    messages: str
    unused: dict[str, int]


def read(source: LabelSource) -> Read:
    """Everything that a source tells, asked in the order of an index, image by image and several at once."""
    images = source.images()
    stats = source.label_stats([path for path, _ in images])
    unused, found, missing = dict(source.unused()), {}, []
    problems: list[LabelProblem | Problem] = []
    asked: list[tuple[str, FileStat, ImageHeader]] = []
    for (path, stat), label in zip(images, stats, strict=True):
        header, _ = read_header(path) if stat.size >= 0 else (None, None)
        if header is None:
            missing.append(Path(path).name)
            continue
        asked.append((path, label, header))
        found[Path(path).name] = source.labels(path, label, header)
        problems += found[Path(path).name].problems
    again = source.labels_of(*zip(*asked, strict=True)) if asked else []
    for one, other in zip(found.values(), again, strict=True):
        assert one.problems == other.problems
        for mine, its in zip((one.cls, one.boxes, *one.ignored), (other.cls, other.boxes, *other.ignored)):
            assert mine.tobytes() == its.tobytes() and (mine.dtype, mine.shape) == (its.dtype, its.shape)
    problems += source.problems()
    kinds = Counter(problem.kind for problem in problems)
    return Read(found, missing, kinds, "\n".join(problem.message for problem in problems), unused)


def make_image(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))


def content(**changes: Any) -> dict[str, Any]:
    """A sound COCO file of the images of `folder`; category ids have gaps and are in no order."""
    return {
        "images": [
            {"id": i, "file_name": name, "height": height, "width": width}
            for i, (name, (height, width)) in enumerate(SIZES.items(), start=10)
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 90, "name": "owl"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 3, "bbox": [4, 6, 20, 12]},
            {"id": 2, "image_id": 11, "category_id": 90, "bbox": [5, 5, 10, 10]},
            {"id": 3, "image_id": 10, "category_id": 7, "bbox": [0, 0, 40, 30]},
        ],
    } | changes
