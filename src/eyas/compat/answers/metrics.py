"""``ultralytics.utils.metrics``: overlaps, average precision and its collectors, with the incumbent's arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eyas import boxes as geometry
from eyas import metrics
from eyas.log import LOGGER, format_table
from eyas.metrics.average_precision import APResult, average_precision
from eyas.metrics.average_precision import smooth as smoothed

Names = Mapping[int, str] | Sequence[str]


# -- overlaps ----------------------------------------------------------------------------------------------------------
def bbox_iou(
    box1: Tensor,
    box2: Tensor,
    xywh: bool = True,
    GIoU: bool = False,
    DIoU: bool = False,
    CIoU: bool = False,
    eps: float = geometry.EPS,
) -> Tensor:
    """Return the overlap (..., 1) of broadcastable boxes (..., 4): plain, generalised, by distance or complete.

    It is computed in float32 at least: the areas of boxes in pixels are beyond half precision.

    Args:
        box1, box2: centre and size, or corners with ``xywh=False``; of complete overlap ``box1`` is the prediction.
        eps: kept for callers of the incumbent's function: it is 1e-7.
    """
    precise = (box.to(torch.promote_types(box.dtype, torch.float32)) for box in (box1, box2))
    a, b = (geometry.cxcywh_to_xyxy(box) if xywh else box for box in precise)
    if CIoU:
        return geometry.elementwise_ciou(a, b)[..., None]
    if GIoU:
        return geometry.elementwise_giou(a, b)[..., None]
    return (geometry.elementwise_iou(a, b) - (_distance(a, b) if DIoU else 0))[..., None]


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared distance of centres (...), by that of the farthest corners (Zheng et al., 2020)."""
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    apart = (b[..., :2] + b[..., 2:] - a[..., :2] - a[..., 2:]) / 2
    return apart.square().sum(-1) / (hull.square().sum(-1) + geometry.EPS)


def box_iou(box1: Tensor, box2: Tensor, eps: float = geometry.EPS) -> Tensor:
    """Return the overlap (N, M) of corner boxes (N, 4) and (M, 4).

    Raises:
        TypeError: they are no tensors.
    """
    if not (isinstance(box1, Tensor) and isinstance(box2, Tensor)):
        raise TypeError("box_iou() takes tensors: box_iou(torch.from_numpy(box1), torch.from_numpy(box2)).")
    return geometry.pairwise_iou(box1.float(), box2.float())


def bbox_ioa(box1: NDArray, box2: NDArray, iou: bool = False, eps: float = geometry.EPS) -> NDArray:
    """Return the part (N, M) of each box of ``box2`` that boxes of ``box1`` cover; ``iou``: of their union."""
    a, b = (torch.from_numpy(np.asarray(box, np.float32).reshape(-1, 4)) for box in (box1, box2))
    overlap = geometry.pairwise_iou(a, b)
    if iou:
        return overlap.numpy()
    both = geometry.box_area(a)[:, None] + geometry.box_area(b)[None]
    covered = overlap * both / (1 + overlap)  # iou = i / (both - i)
    return (covered / (geometry.box_area(b)[None] + geometry.EPS)).numpy()


# -- average precision -------------------------------------------------------------------------------------------------
def smooth(y: NDArray, f: float = 0.05) -> NDArray[np.float64]:
    """Return ``y`` (n,) under a box filter over the share ``2 f`` of its length."""
    return smoothed(y, round(len(y) * f * 2) // 2 * 2 + 1)


def compute_ap(recall: Sequence[float], precision: Sequence[float]) -> tuple[float, NDArray, NDArray]:
    """Return the area under a curve, and the curve with its ends: falling precision, and recall."""
    r, p = np.asarray(recall, np.float64), np.asarray(precision, np.float64)
    last = r[-1] if len(r) else 1.0
    envelope = np.flip(np.maximum.accumulate(np.flip(np.r_[1.0, p, 0.0, 0.0])))
    return average_precision(r, p), envelope, np.r_[0.0, r, last, 1.0]


def ap_per_class(
    tp: Any,
    conf: Any,
    pred_cls: Any,
    target_cls: Any,
    plot: bool = False,
    on_plot: Any = None,
    save_dir: str | Path = ".",
    names: Names = (),
    eps: float = 1e-16,
    prefix: str = "",
) -> tuple[NDArray, ...]:
    """Return what `eyas.metrics.ap_per_class` finds, in the incumbent's order.

    Args:
        tp: (N, T) correct at each threshold. conf: (N,) scores. pred_cls: (N,), target_cls: (M,) class ids.
        plot: write the four curves into ``save_dir``; ``on_plot(path)`` is told of each.
        eps, prefix: kept for callers of the incumbent's function.

    Returns:
        tp, fp, p, r, f1 (K,), ap (K, T), classes (K,), p_curve, r_curve, f1_curve (K, 1000), x (1000,),
        prec_values (K, 1000), for the K classes with ground truth.
    """
    found = metrics.ap_per_class(*(np.asarray(values) for values in (tp, conf, pred_cls, target_cls)))
    wanted = np.bincount(np.asarray(target_cls).astype(np.int64), minlength=1)[found.ap_class_index]
    hits = (found.r * wanted).round()
    wrong = (hits / (found.p + eps) - hits).round()
    if plot:
        known = as_names(names) or {int(c): str(c) for c in found.ap_class_index}
        write_curves(metrics.BoxMetrics(len(known), found), known, Path(save_dir), on_plot)
    return (
        *(hits, wrong, found.p, found.r, found.f1, found.ap, found.ap_class_index.astype(int)),
        *(found.p_curve, found.r_curve, found.f1_curve, found.px, found.prec_values),
    )


def write_curves(box: metrics.BoxMetrics, names: Mapping[int, str], folder: Path, on_plot: Any) -> None:
    """Write the four curves into a folder, and tell ``on_plot(path)`` of each, if it is there."""
    from eyas.plot.curves import save_curves

    folder.mkdir(parents=True, exist_ok=True)
    for path in save_curves(box, names, folder):
        if on_plot is not None:
            on_plot(path)


def as_names(names: Names | int | None) -> dict[int, str]:
    """Return class names by id; a number stands for that many without a name."""
    if isinstance(names, int):
        return {i: str(i) for i in range(names)}
    return dict(names) if isinstance(names, Mapping) else dict(enumerate(names or ()))


class Metric(metrics.BoxMetrics):
    """Results per class, filled by `update` with what `ap_per_class` returned."""

    def update(self, results: Sequence[Any]) -> None:
        """Take p, r, f1, ap, classes and the curves: the results of `ap_per_class` from the third on."""
        p, r, f1, ap, classes, p_curve, r_curve, f1_curve, px, prec_values = results
        best = float(px[smooth(f1_curve.mean(0), 0.05).argmax()]) if len(classes) else 0.0
        found = APResult(
            ap_class_index=np.asarray(classes, np.int64),
            p=p,
            r=r,
            f1=f1,
            ap=ap,
            px=px,
            p_curve=p_curve,
            r_curve=r_curve,
            f1_curve=f1_curve,
            prec_values=prec_values,
            best_conf=best,
        )
        super().__init__(max(self.nc, int(found.ap_class_index.max(initial=-1)) + 1), found)


class DetMetrics(metrics.DetMetrics):
    """Collects matches of a split.

    Args:
        given: class names by id, or (older calls) ``save_dir``.
        names: class names by id.
        save_dir: folder of curves, where ``plot`` asks for them; ``on_plot(path)`` is told of each.
    """

    def __init__(
        self,
        given: Names | str | Path | None = None,
        plot: bool = False,
        on_plot: Any = None,
        *,
        names: Names | None = None,
        save_dir: str | Path | None = None,
    ) -> None:
        folder = given if isinstance(given, str | Path) else save_dir
        classes = names if names is not None or isinstance(given, str | Path) else given
        super().__init__(as_names(classes), save_dir=None if folder is None else Path(folder))
        self.plot, self.on_plot = plot, on_plot

    def update_stats(self, stat: Mapping[str, Any]) -> None:
        """Add one image: tp (n, 10), conf (n,), pred_cls (n,), target_cls (m,), and its name ``im_name``, if any."""
        got = {key: np.asarray(stat[key]) for key in ("tp", "conf", "pred_cls", "target_cls")}
        file = str(stat.get("im_name", len(self.image_files)))
        nowhere = np.zeros(len(got["conf"]), np.int64), np.zeros(len(got["target_cls"]), np.int64)
        self.update(**got, pred_img=nowhere[0], target_img=nowhere[1], image_files=[file])

    def process(
        self,
        tp: Any = None,
        conf: Any = None,
        pred_cls: Any = None,
        target_cls: Any = None,
        *,
        save_dir: str | Path | None = None,
        plot: bool | None = None,
        on_plot: Any = None,
    ) -> dict[str, float]:
        """Compute everything from what was collected, or from ``tp, conf, pred_cls, target_cls`` of a whole split.

        Raises:
            ValueError: some of these four are given, and not all.
        """
        stats = {"tp": tp, "conf": conf, "pred_cls": pred_cls, "target_cls": target_cls}
        lacking = [name for name, values in stats.items() if values is None]
        if 0 < len(lacking) < len(stats):
            raise ValueError(f"process() needs {', '.join(lacking)} too: all of {', '.join(stats)}, or none of them.")
        if not lacking:
            self.clear()
            self.update_stats(stats)
        found = super().process()
        if self.plot if plot is None else plot:
            write_curves(self.box, self.names, Path(save_dir or self.save_dir or "."), on_plot or self.on_plot)
        return found


class ConfusionMatrix(metrics.ConfusionMatrix):
    """Counts of (predicted, true), one image at a time.

    Args:
        names: class names, or (older calls, also as ``nc``) how many classes there are.
        conf, iou_thres: lowest score, and overlap that a pair must exceed, where `process_batch` says nothing else.
    """

    def __init__(
        self,
        names: Names | int | None = None,
        conf: float = 0.25,
        iou_thres: float = 0.45,
        task: str = "detect",
        nc: int | None = None,
    ) -> None:
        if task != "detect":
            raise ValueError(f"task={task!r} is not supported; Eyas detects objects (task='detect').")
        super().__init__(as_names(names if nc is None else nc), conf=conf, iou=iou_thres)

    def process_batch(
        self,
        detections: Any,
        batch: Any,
        gt_cls: Any = None,
        conf: float | None = None,
        iou_thres: float | None = None,
    ) -> None:
        """Count one image.

        Args:
            detections: {"bboxes" (n, 4), "conf" (n,), "cls" (n,)}, or rows (n, 6) x1 y1 x2 y2 score class, or None.
            batch: {"bboxes" (m, 4), "cls" (m,)} of the truth, or its corners, with classes in ``gt_cls``.
        """
        self.conf, self.iou = self.conf if conf is None else conf, self.iou if iou_thres is None else iou_thres
        truth = batch if isinstance(batch, Mapping) else {"bboxes": batch, "cls": gt_cls}
        if not isinstance(detections, Mapping):
            rows = np.zeros((0, 6)) if detections is None else _array(detections)
            detections = {"bboxes": rows[:, :4], "conf": rows[:, 4], "cls": rows[:, 5]}
        scores, boxes = _array(detections["conf"]), _array(truth["bboxes"]).reshape(-1, 4)
        one_image = np.zeros(len(scores), np.int64), np.zeros(len(boxes), np.int64)
        found = _array(detections["bboxes"]).reshape(-1, 4), scores, _array(detections["cls"]).reshape(-1)
        self.update(*found, one_image[0], boxes, _array(truth["cls"]).reshape(-1), one_image[1])

    def tp_fp(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (nc,) right and (nc,) wrong detections of each class."""
        right = self.matrix.diagonal()[:-1].copy()
        return right, self.matrix[:-1].sum(1) - right

    def plot(
        self, normalize: bool = True, save_dir: str | Path = "", names: Names = (), on_plot: Any = None
    ) -> list[Path]:
        """Write the two pictures of the matrix, counts and shares, into a folder; returns their paths."""
        from eyas.plot.confusion import save_confusion_matrices

        self.names = as_names(names) or self.names
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        paths = save_confusion_matrices(self, Path(save_dir))
        for path in paths if on_plot is not None else ():
            on_plot(path)
        return paths

    def summary(self, normalize: bool = False, decimals: int = 5) -> list[dict[str, Any]]:
        """Return a row for each predicted class: its name as ``Predicted``, and how often each true one was it.

        ``normalize``: as shares of the true objects of a class, to so many decimals.
        """
        labels, counts = self.labels(), self.matrix.astype(float)
        values = (counts / (counts.sum(0, keepdims=True) + 1e-9)).round(decimals) if normalize else counts
        rows = zip(labels, values.tolist(), strict=True)
        return [{"Predicted": label, **dict(zip(labels, row, strict=True))} for label, row in rows]

    def to_df(self, normalize: bool = False, decimals: int = 5) -> Any:
        """Return ``summary()`` as a table of pandas.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        import pandas as pd  # type: ignore[import-untyped]  # no stubs

        return pd.DataFrame(self.summary(normalize, decimals))

    def print(self) -> None:
        """Log the matrix."""
        labels = self.labels()
        rows = [[label, *row] for label, row in zip(labels, self.matrix.tolist(), strict=True)]
        for line in format_table(["predicted", *labels], rows):
            LOGGER.info("%s", line)


def _array(values: Any) -> NDArray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
