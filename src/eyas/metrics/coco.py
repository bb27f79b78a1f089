"""COCO's twelve numbers from flat arrays, through faster-coco-eval, which is imported only when they are asked for.

The matching is that of `eyas.metrics.matching`; three definitions differ from the built-in metrics: COCO's AP is the
plain mean of precision at 101 recalls, it looks at no more than 100 detections per image and class, and it also counts
by size.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

COCO_KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def coco_dataset(
    gt_boxes: NDArray,
    gt_cls: NDArray,
    gt_image: NDArray,
    *,
    num_images: int,
    names: Mapping[int, str],
    crowds: tuple[NDArray, NDArray, NDArray] | None = None,
) -> dict[str, Any]:
    """Ground truth in COCO's JSON layout, ids as given (image ids are 0..num_images-1).

    Args:
        gt_boxes: (M, 4) xyxy in pixels of the original image; sizes decide small, medium and large.
        gt_cls: (M,) class ids.
        gt_image: (M,) image index.
        num_images: images in the split, also those without boxes.
        names: class names by id.
        crowds: boxes, class ids and images of areas to ignore, in which a detection of that class is neither right nor
            wrong; None for none.
    """
    rows = [(*row, 0) for row in _rows(gt_image, gt_cls, ltwh(gt_boxes))]
    if crowds is not None:
        boxes, cls, image = crowds
        rows += [(*row, 1) for row in _rows(image, cls, ltwh(boxes))]
    annotations = [
        {"id": i + 1, "image_id": image, "category_id": cls, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
        for i, (image, cls, box, crowd) in enumerate(rows)
    ]
    return {
        "info": {},
        "images": [{"id": i} for i in range(num_images)],
        "annotations": annotations,
        "categories": [{"id": int(i), "name": name} for i, name in names.items()],
    }


def coco_detections(boxes: NDArray, scores: NDArray, cls: NDArray, image: NDArray) -> list[dict[str, Any]]:
    """Detections in COCO's results layout; boxes (N, 4) xyxy in pixels of the original image."""
    return [
        {"image_id": i, "category_id": c, "bbox": box, "score": float(score)}
        for (i, c, box), score in zip(_rows(image, cls, ltwh(boxes)), scores, strict=True)
    ]


def coco_numbers(dataset: dict[str, Any], detections: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """COCO's twelve numbers.

    Args:
        dataset: ground truth as `coco_dataset` makes it, or a loaded COCO annotation file.
        detections: rows with image_id, category_id, bbox (left, top, width, height) and score.

    Returns:
        {AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl}, each in [0, 1], or -1 where no ground truth of
        that size exists.

    Raises:
        ModuleNotFoundError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "COCO's numbers need the package faster-coco-eval: pip install faster-coco-eval", name=error.name
        ) from error
    objects = [annotation for annotation in dataset["annotations"] if not annotation.get("iscrowd")]
    if not objects:
        return dict.fromkeys(COCO_KEYS, -1.0)
    if not detections:  # the package cannot load an empty list; every number with ground truth is 0
        bins = np.digitize([a["area"] for a in objects], [32**2, 96**2])
        sized = {letter: bool((bins == i).any()) for i, letter in enumerate("sml")}
        return {key: 0.0 if sized.get(key[-1], True) else -1.0 for key in COCO_KEYS}
    with contextlib.redirect_stdout(io.StringIO()):  # the package reports its progress with print
        truth = COCO(dataset)
        evaluation = COCOeval_faster(truth, truth.loadRes(list(detections)), "bbox", print_function=_silent)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {key: float(value) for key, value in zip(COCO_KEYS, evaluation.stats[:12], strict=True)}


def ltwh(boxes: NDArray) -> NDArray[np.float64]:
    """(N, 4) xyxy to left, top, width, height."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _rows(image: NDArray, cls: NDArray, boxes: NDArray) -> list[tuple[int, int, list[float]]]:
    ids, classes = np.asarray(image, np.int64).tolist(), np.asarray(cls, np.int64).tolist()
    return list(zip(ids, classes, boxes.tolist(), strict=True))


def _silent(*_: object) -> None:
    return None
