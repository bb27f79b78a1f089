"""What pycocotools says, for tests that compare with it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pytest


def with_pycocotools(dataset: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> Any:
    """Return COCO's evaluation of detections, accumulated and summarised."""
    pycocotools = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = pycocotools.COCO()
        truth.dataset = dataset
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
