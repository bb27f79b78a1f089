"""Confusion matrix of a detector: what was predicted for each true object, with one extra class for background."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from eyas.metrics.matching import match_detections
from eyas.tables import html_table


class ConfusionMatrix:
    """Counts of (predicted class, true class); the last row and column are background.

    A detection is paired with the ground truth of any class that overlaps it most, greedily in descending score
    (spec core F.5). Unmatched ground truth counts in the background row (missed), an unmatched detection in the
    background column (false alarm).

    Detections below `conf` are ignored. The default of 0.25 is what a user of the detector would see; the incumbent
    uses the validation threshold of 0.001, which floods the background column with boxes nobody would look at.

    Args:
        names: class names by id, 0..nc-1.
        conf: lowest score that counts, in [0, 1).
        iou: overlap that a pair must exceed, in [0, 1).

    Attributes:
        matrix: (nc + 1, nc + 1) int64, [predicted, true].
    """

    def __init__(self, names: Mapping[int, str], *, conf: float = 0.25, iou: float = 0.45) -> None:
        self.names = dict(names)
        self.nc = len(self.names)
        self.conf = conf
        self.iou = iou
        self.matrix: NDArray[np.int64] = np.zeros((self.nc + 1, self.nc + 1), dtype=np.int64)

    def update(
        self,
        det_boxes: NDArray,
        det_scores: NDArray,
        det_cls: NDArray,
        det_image: NDArray,
        gt_boxes: NDArray,
        gt_cls: NDArray,
        gt_image: NDArray,
        excused: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count the images of one batch; arguments as in `match_detections`.

        Detections that are ``excused`` (N,) and not paired count nowhere.
        """
        keep = np.asarray(det_scores) > self.conf
        wrong = np.ones(keep.sum(), bool) if excused is None else ~excused[keep]
        above_iou = np.array([np.nextafter(self.iou, 1.0)])  # the pair must exceed it, matching says "at least"
        det_cls = det_cls[keep]
        claimed = match_detections(
            det_boxes[keep],
            det_scores[keep],
            det_cls,
            det_image[keep],
            gt_boxes,
            gt_cls,
            gt_image,
            thresholds=above_iou,
            class_aware=False,
        )[:, 0]
        predicted, true = np.asarray(det_cls).astype(np.int64), np.asarray(gt_cls).astype(np.int64)
        hit = claimed >= 0
        missed = np.ones(len(true), dtype=bool)
        missed[claimed[hit]] = False
        self._count(predicted[hit], true[claimed[hit]])
        wrong &= ~hit
        self._count(predicted[wrong], np.full(wrong.sum(), self.nc))
        self._count(np.full(missed.sum(), self.nc), true[missed])

    def __repr__(self) -> str:
        return f"ConfusionMatrix({self.nc} classes, {self.matrix.sum()} pairs, conf={self.conf}, iou={self.iou})"

    def _repr_html_(self) -> str:
        rows = [[name, *counts] for name, counts in zip(self.labels(), self.matrix.tolist(), strict=True)]
        return html_table(("predicted \\ true", *self.labels()), rows, repr(self))

    def normalized(self) -> NDArray[np.float64]:
        """Each column divided by its sum: of the true objects of a class, the share predicted as each class."""
        return self.matrix / np.maximum(self.matrix.sum(axis=0, keepdims=True), 1)

    def labels(self) -> list[str]:
        """Names of rows and columns in order, background last."""
        return [*self.names.values(), "background"]

    def _count(self, predicted: NDArray, true: NDArray) -> None:
        np.add.at(self.matrix, (predicted, true), 1)
