"""Precision, recall and F1 over confidence, and precision over recall."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eyas.metrics.detection import BoxMetrics
from eyas.plot.style import (
    FAINT,
    INK,
    MAX_NAMED_CLASSES,
    class_rgb,
    figure_name,
    new_figure,
    save_figure,
    tidy,
)


def save_curves(box: BoxMetrics, names: Mapping[int, str], folder: Path) -> list[Path]:
    """Write BoxPR_curve.png, BoxF1_curve.png, BoxP_curve.png and BoxR_curve.png; return their paths.

    Args:
        box: results after a validation; without any ground truth the pictures say so.
        names: class names by id.
        folder: where to write; it exists.
    """
    plain = [figure_name(cls, names[cls]) for cls in box.ap_class_index.tolist()]
    per_class = [f"{name}  {ap:.3f}" for name, ap in zip(plain, box.ap50, strict=True)]
    ids = box.ap_class_index
    return [
        _save(
            folder / "BoxPR_curve.png",
            box.px,
            box.prec_values,
            ids,
            per_class,
            title="Precision over recall at IoU 0.5 (legend: AP50)",
            axes=("Recall", "Precision"),
            mean_label=f"all classes  {box.map50:.3f}",
        ),
        _save_over_confidence(folder / "BoxF1_curve.png", box, box.f1_curve, plain, "F1"),
        _save_over_confidence(folder / "BoxP_curve.png", box, box.p_curve, plain, "Precision"),
        _save_over_confidence(folder / "BoxR_curve.png", box, box.r_curve, plain, "Recall"),
    ]


def _save_over_confidence(path: Path, box: BoxMetrics, curves: NDArray, labels: list[str], what: str) -> Path:
    at_best = float(np.interp(box.best_conf, box.px, curves.mean(axis=0))) if len(curves) else 0.0
    return _save(
        path,
        box.px,
        curves,
        box.ap_class_index,
        labels,
        title=f"{what} over confidence at IoU 0.5",
        axes=("Confidence", what),
        mean_label=f"all classes  {at_best:.3f} at {box.best_conf:.3f}",
        mark=(box.best_conf, at_best),
    )


def _save(
    path: Path,
    x: NDArray,
    curves: NDArray,
    ids: NDArray,
    labels: list[str],
    *,
    title: str,
    axes: tuple[str, str],
    mean_label: str,
    mark: tuple[float, float] | None = None,
) -> Path:
    """One picture: a thin line per class (k, 1000), a thick one for their mean, a dot at the chosen confidence."""
    figure = new_figure(9, 6)
    axis = figure.add_subplot()
    tidy(axis, title=title, x=axes[0], y=axes[1])
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
    named = len(curves) <= MAX_NAMED_CLASSES
    for cls, curve, label in zip(ids.tolist(), curves, labels, strict=True):
        color = class_rgb(cls) if named else FAINT
        axis.plot(x, curve, linewidth=1.2 if named else 0.6, color=color, label=label if named else None)
    if len(curves):
        axis.plot(x, curves.mean(axis=0), linewidth=3, color=INK, label=mean_label)
        if mark is not None:
            axis.axvline(mark[0], color=INK, linewidth=1, linestyle=(0, (4, 3)))
            axis.plot(*mark, marker="o", markersize=7, color=INK)
        axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9)
    else:
        axis.text(0.5, 0.5, "no labels in this split", ha="center", va="center", color=FAINT, fontsize=14)
    return save_figure(figure, path)
