"""Detection metrics of a whole split: collect matches batch by batch, then one result object (spec core A.9, F)."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyas.metrics.average_precision import APResult, ap_per_class
from eyas.metrics.confusion import ConfusionMatrix
from eyas.metrics.matching import IOU_THRESHOLDS
from eyas.tables import html_table

METRIC_KEYS = ("metrics/precision(B)", "metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)")

FITNESS_WEIGHTS: Mapping[str, float] = {"metrics/mAP50(B)": 0.1, "metrics/mAP50-95(B)": 0.9}
"""What "best" means by default: one number from the metrics, as the training guide documents it."""

_COLUMNS = (("boxes", "box"), ("cls", "cls"), ("image", "img"))  # as matching calls them, and as they are collected

ImageMetrics = dict[str, dict[str, float | int]]


def fitness(metrics: Mapping[str, float]) -> float:
    """Weighted sum of a metrics dict: 0.1 mAP50 + 0.9 mAP50-95."""
    return float(sum(weight * metrics[key] for key, weight in FITNESS_WEIGHTS.items()))


class BoxMetrics:
    """Results per class and their means; what `validator.metrics.box` gives.

    Arrays have one row per class that has ground truth (K rows; `ap_class_index` tells which class). Before any run,
    and for a split without ground truth, they are empty and the means are 0.

    Attributes:
        p, r, f1: (K,) float64 at IoU 0.5 and at `best_conf`, the confidence with the best mean F1.
        all_ap: (K, 10) average precision at IoU 0.50, 0.55, ..., 0.95.
        ap50, ap: (K,) at IoU 0.5, and the mean over the ten.
        ap_class_index: (K,) int64 class ids, ascending.
        mp, mr, map50, map75, map: float64 means over the K classes.
        maps: (nc,) mAP50-95 of every class; classes without ground truth carry the overall `map`.
        px, p_curve, r_curve, f1_curve, prec_values: the curves, see `APResult`.
        image_metrics: per image, see the property.
        counts: the same in arrays; None before any run.
        nc: number of class names.
    """

    def __init__(self, nc: int = 0, result: APResult | None = None, images: ImageCounts | None = None) -> None:
        self.nc = nc
        result = result if result is not None else _no_result()
        self.p, self.r, self.f1 = result.p, result.r, result.f1
        self.all_ap = result.ap
        self.ap_class_index = result.ap_class_index
        self.px, self.p_curve, self.r_curve, self.f1_curve = result.px, result.p_curve, result.r_curve, result.f1_curve
        self.prec_values = result.prec_values
        self.best_conf = result.best_conf
        self.counts = images

    def __repr__(self) -> str:
        """For example ``BoxMetrics(P 0.8, R 0.7, mAP50 0.75, mAP50-95 0.5, 3 of 80 classes)``."""
        return f"BoxMetrics({self.means_text()}, {len(self.ap_class_index)} of {self.nc} classes)"

    def means_text(self) -> str:
        """The four means for people."""
        names = ("P", "R", "mAP50", "mAP50-95")
        return ", ".join(f"{name} {value:.4g}" for name, value in zip(names, self.mean_results(), strict=True))

    @property
    def ap50(self) -> NDArray[np.float64]:
        return self.all_ap[:, 0]

    @property
    def ap(self) -> NDArray[np.float64]:
        return self.all_ap.mean(axis=1)

    @property
    def mp(self) -> np.float64:
        return _mean(self.p)

    @property
    def mr(self) -> np.float64:
        return _mean(self.r)

    @property
    def map50(self) -> np.float64:
        return _mean(self.all_ap[:, 0])

    @property
    def map75(self) -> np.float64:
        return _mean(self.all_ap[:, 5])

    @property
    def map(self) -> np.float64:
        return _mean(self.all_ap)

    @property
    def maps(self) -> NDArray[np.float64]:
        values = np.full(self.nc, self.map)
        values[self.ap_class_index] = self.ap
        return values

    @cached_property
    def image_metrics(self) -> ImageMetrics:
        """Image file -> {precision, recall, f1, tp, fp, fn} at IoU 0.5 and the confidence of `p`, `r` and `f1`.

        The key is the bare file name; images whose names are equal carry as many parent folders as tell them apart
        ("a/1.jpg", "b/1.jpg"). Only detections above `best_conf` count: with every box down to the validation threshold
        of 0.001, as the incumbent counts, the precision of any image is close to 0. An image without ground truth and
        without detections has precision = recall = f1 = 1.
        """
        return self.counts.as_dict() if self.counts is not None else {}

    def mean_results(self) -> list[float]:
        """[mp, mr, map50, map]."""
        return [float(self.mp), float(self.mr), float(self.map50), float(self.map)]

    def class_result(self, i: int) -> tuple[float, float, float, float]:
        """(p, r, ap50, ap) of row i, which is class `ap_class_index[i]`."""
        return float(self.p[i]), float(self.r[i]), float(self.ap50[i]), float(self.ap[i])

    def fitness(self) -> float:
        """0.1 mAP50 + 0.9 mAP50-95."""
        return fitness(dict(zip(METRIC_KEYS, self.mean_results(), strict=True)))


class DetMetrics:
    """Collects matched detections of a split and turns them into `box` and a results dict.

    Use: `update()` per batch, `process()` once, then read. `clear()` starts over.

    Args:
        names: class names by id, 0..nc-1.
        save_dir: where the validator writes its files, kept for readers.

    Attributes:
        box: `BoxMetrics`, empty until `process()`.
        speed: milliseconds per image of each stage, set by the validator.
        stats: flat arrays after `process()`: tp (N, 10) bool, excused (N, 10) bool (neither
            right nor wrong), conf (N,), pred_cls (N,), pred_img (N,), pred_box (N, 4), target_cls (M,), target_img
            (M,), target_box (M, 4); `*_img` index `image_files`, boxes are xyxy in pixels of the original image, nan
            where `update()` got none.
        nt_per_class, nt_per_image: (nc,) ground-truth boxes of each class, images that show it.
    """

    def __init__(self, names: Mapping[int, str], *, save_dir: Path | None = None) -> None:
        self.names = dict(names)
        self.nc = len(self.names)
        self.save_dir = save_dir
        self.clear()

    def clear(self) -> None:
        """Forget everything collected so far."""
        self.box = BoxMetrics(self.nc)
        self.speed: dict[str, float] = dict.fromkeys(("preprocess", "inference", "loss", "postprocess"), 0.0)
        self.stats: dict[str, NDArray] = {}
        self.image_files: list[str] = []
        self.nt_per_class = np.zeros(self.nc, dtype=np.int64)
        self.nt_per_image = np.zeros(self.nc, dtype=np.int64)
        self._confusion: ConfusionMatrix | None = None
        self._collected: list[dict[str, NDArray]] = []

    def update(
        self,
        *,
        tp: NDArray,
        conf: NDArray,
        pred_cls: NDArray,
        pred_img: NDArray,
        target_cls: NDArray,
        target_img: NDArray,
        image_files: Sequence[str],
        pred_box: NDArray | None = None,
        target_box: NDArray | None = None,
        excused: NDArray | None = None,
    ) -> None:
        """Add one batch of images.

        Args:
            tp: (n, 10) bool, detection correct at each of `IOU_THRESHOLDS`.
            conf: (n,) scores.
            pred_cls: (n,) class ids.
            pred_img: (n,) index into `image_files`.
            target_cls: (m,) class ids of the ground truth.
            target_img: (m,) index into `image_files`.
            image_files: paths of all images of the batch, also of those without boxes.
            pred_box: (n, 4) xyxy in pixels of the original image; only metrics by object size need boxes.
            target_box: (m, 4) likewise.
            excused: (n, 10) bool, detections that are neither right nor wrong at each threshold; None for none.
        """
        offset = len(self.image_files)
        self.image_files.extend(image_files)
        self._collected.append(
            {
                "tp": np.asarray(tp, bool),
                "excused": np.zeros_like(tp, bool) if excused is None else np.asarray(excused, bool),
                "conf": np.asarray(conf, np.float32),
                "pred_cls": np.asarray(pred_cls, np.int64),
                "pred_img": np.asarray(pred_img, np.int64) + offset,
                "target_cls": np.asarray(target_cls, np.int64),
                "target_img": np.asarray(target_img, np.int64) + offset,
                "pred_box": _boxes(pred_box, len(conf)),
                "target_box": _boxes(target_box, len(target_cls)),
            }
        )

    def process(self) -> dict[str, float]:
        """Compute everything from what was collected; returns `results_dict`."""
        parts = self._collected or [_no_stats()]
        stats = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        self.stats = stats
        self.nt_per_class = np.bincount(stats["target_cls"], minlength=self.nc)
        seen = np.unique(stats["target_img"] * max(self.nc, 1) + stats["target_cls"]) % max(self.nc, 1)
        self.nt_per_image = np.bincount(seen, minlength=self.nc)
        result = ap_per_class(*(stats[key] for key in ("tp", "conf", "pred_cls", "target_cls", "excused")))
        self.box = BoxMetrics(self.nc, result, ImageCounts(self.image_files, stats, result.best_conf))
        self._confusion = None
        return self.results_dict

    def __repr__(self) -> str:
        """For example ``DetMetrics(P 0.8, R 0.7, mAP50 0.75, mAP50-95 0.5, 128 images)``."""
        return f"DetMetrics({self.box.means_text()}, {len(self.image_files)} images)"

    def _repr_html_(self) -> str:
        rows = self.summary(decimals=4)
        return html_table(list(rows[0]) if rows else (), [[*row.values()] for row in rows], repr(self))

    @property
    def keys(self) -> list[str]:
        return list(METRIC_KEYS)

    @property
    def confusion_matrix(self) -> ConfusionMatrix:
        """Counts at the matrix's default thresholds, made when they are first read; zeros until `process()`.

        It needs the boxes that `update()` may leave out: without them, nothing is paired.
        """
        if self._confusion is None:
            self._confusion = ConfusionMatrix(self.names)
            if self.stats:
                found = {f"det_{key}": self.stats[f"pred_{name}"] for key, name in _COLUMNS}
                true = {f"gt_{key}": self.stats[f"target_{name}"] for key, name in _COLUMNS}
                excused = self.stats["excused"][:, 0]
                self._confusion.update(det_scores=self.stats["conf"], excused=excused, **found, **true)
        return self._confusion

    @property
    def results_dict(self) -> dict[str, float]:
        """The four metrics and `fitness`."""
        values = dict(zip(METRIC_KEYS, self.mean_results(), strict=True))
        return {**values, "fitness": fitness(values)}

    @property
    def fitness(self) -> float:
        return self.box.fitness()

    @property
    def maps(self) -> NDArray[np.float64]:
        return self.box.maps

    @property
    def ap_class_index(self) -> NDArray[np.int64]:
        return self.box.ap_class_index

    @property
    def curves(self) -> list[str]:
        """Titles of `curves_results`, in the same order."""
        return ["Precision-Recall(B)", "F1-Confidence(B)", "Precision-Confidence(B)", "Recall-Confidence(B)"]

    @property
    def curves_results(self) -> list[list[Any]]:
        """Per curve: x (1000,), y (K, 1000), name of x, name of y."""
        box = self.box
        return [
            [box.px, box.prec_values, "Recall", "Precision"],
            [box.px, box.f1_curve, "Confidence", "F1"],
            [box.px, box.p_curve, "Confidence", "Precision"],
            [box.px, box.r_curve, "Confidence", "Recall"],
        ]

    def mean_results(self) -> list[float]:
        """[precision, recall, mAP50, mAP50-95] in the order of `keys`."""
        return self.box.mean_results()

    def class_result(self, i: int) -> tuple[float, float, float, float]:
        """(p, r, ap50, ap) of row i, which is class `ap_class_index[i]`."""
        return self.box.class_result(i)

    def summary(self, normalize: bool = True, decimals: int = 5) -> list[dict[str, Any]]:
        """One dict per class with ground truth: Class, Images, Instances, Box-P, Box-R, Box-F1, mAP50, mAP75, mAP50-95.

        Args:
            normalize: kept for callers of the incumbent's method; detection values are in [0, 1] either way.
            decimals: digits kept.
        """
        box = self.box
        rows = []
        for k, cls in enumerate(box.ap_class_index.tolist()):
            numbers = {
                "Box-P": box.p[k],
                "Box-R": box.r[k],
                "Box-F1": box.f1[k],
                "mAP50": box.all_ap[k, 0],
                "mAP75": box.all_ap[k, 5],
                "mAP50-95": box.all_ap[k].mean(),
            }
            row: dict[str, Any] = {
                "Class": self.names[cls],
                "Images": int(self.nt_per_image[cls]),
                "Instances": int(self.nt_per_class[cls]),
            }
            rows.append(row | {key: round(float(value), decimals) for key, value in numbers.items()})
        return rows

    def to_csv(self, decimals: int = 5) -> str:
        """`summary()` as CSV text with a header line; empty when there are no rows."""
        rows = self.summary(decimals=decimals)
        if not rows:
            return ""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def to_json(self, decimals: int = 5) -> str:
        """`summary()` as a JSON list."""
        return json.dumps(self.summary(decimals=decimals))


class ImageCounts:
    """Hits, detections and objects of each image at IoU 0.5, in flat arrays; a dict of dicts is made when read.

    Attributes:
        shown: (N,) bool, detections that count: confident enough, and not excused.
        tp, predicted, true: (images,) int64.
    """

    def __init__(self, image_files: Sequence[str], stats: Mapping[str, NDArray], conf: float) -> None:
        self.shown = shown = (stats["conf"] >= conf) & ~stats["excused"][:, 0]
        count = len(image_files)
        self.image_files = list(image_files)
        self.tp = np.bincount(stats["pred_img"][shown & stats["tp"][:, 0]], minlength=count)
        self.predicted = np.bincount(stats["pred_img"][shown], minlength=count)
        self.true = np.bincount(stats["target_img"], minlength=count)

    def as_dict(self) -> ImageMetrics:
        result: ImageMetrics = {}
        counts = (self.tp.tolist(), self.predicted.tolist(), self.true.tolist())
        for key, tp, predicted, true in zip(shortest_unique_names(self.image_files), *counts, strict=True):
            perfect = 1.0 if predicted == true == 0 else 0.0
            result[key] = {
                "precision": tp / predicted if predicted else perfect,
                "recall": tp / true if true else perfect,
                "f1": 2 * tp / (predicted + true) if predicted + true else perfect,
                "tp": tp,
                "fp": predicted - tp,
                "fn": true - tp,
            }
        return result


def shortest_unique_names(paths: Sequence[str]) -> list[str]:
    """The bare file name of each path, with as many parent folders in front as make it unique in the list.

    The same path given twice keeps its full form twice.
    """
    parts = [PurePath(path).parts for path in paths]
    depth = [1] * len(parts)
    pending = list(range(len(parts)))
    while pending:
        names = ["/".join(parts[i][-depth[i] :]) for i in pending]
        seen = Counter(names)
        pending = [i for i, name in zip(pending, names, strict=True) if seen[name] > 1 and depth[i] < len(parts[i])]
        for i in pending:
            depth[i] += 1
    return [str(PurePath(*p[-d:])).replace("\\", "/") for p, d in zip(parts, depth, strict=True)]


def _mean(values: NDArray) -> np.float64:
    return np.float64(values.mean()) if values.size else np.float64(0.0)


def _no_stats() -> dict[str, NDArray]:
    none = np.zeros(0, np.int64)
    tp, conf, box = np.zeros((0, len(IOU_THRESHOLDS)), bool), np.zeros(0, np.float32), _boxes(None, 0)
    ids = {"pred_cls": none, "pred_img": none, "target_cls": none, "target_img": none}
    return {"tp": tp, "excused": tp, "conf": conf, **ids, "pred_box": box, "target_box": box}


def _boxes(boxes: NDArray | None, count: int) -> NDArray[np.float32]:
    """Boxes as given; nan stands for boxes that nobody gave."""
    if boxes is None:
        return np.full((count, 4), np.nan, np.float32)
    return np.asarray(boxes, np.float32).reshape(count, 4)


def _no_result() -> APResult:
    empty = _no_stats()
    return ap_per_class(empty["tp"], empty["conf"], empty["pred_cls"], empty["target_cls"])
