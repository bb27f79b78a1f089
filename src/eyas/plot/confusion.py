"""Confusion matrix as a picture, in counts and in shares of each true class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eyas.metrics.confusion import ConfusionMatrix
from eyas.plot.style import INK, figure_name, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_WRITTEN_CLASSES = 30  # above, numbers and names would be too small to read


def save_confusion_matrices(confusion: ConfusionMatrix, folder: Path) -> list[Path]:
    """Write confusion_matrix.png (counts) and confusion_matrix_normalized.png (columns sum to 1)."""
    note = f"confidence > {confusion.conf:g}, IoU > {confusion.iou:g}"
    labels = confusion.labels()
    return [
        _save(folder / "confusion_matrix.png", confusion.matrix, labels, f"Confusion matrix, counts ({note})"),
        _save(
            folder / "confusion_matrix_normalized.png",
            confusion.normalized(),
            labels,
            f"Confusion matrix, share of each true class ({note})",
        ),
    ]


def _save(path: Path, values: NDArray, labels: list[str], title: str) -> Path:
    side = float(np.clip(3.5 + 0.45 * len(labels), 6.5, 16))
    figure = new_figure(side + 1, side)
    axis = figure.add_subplot()
    shown = np.where(values > 0, values, np.nan)  # an empty cell stays white
    highest = 1.0 if values.dtype.kind == "f" else float(max(values.max(), 1))
    image = axis.imshow(shown, cmap="Blues", vmin=0, vmax=highest, interpolation="nearest")
    figure.colorbar(image, ax=axis, fraction=0.046, pad=0.02)
    axis.set_title(title, fontsize=11)
    axis.set_xlabel("True")
    axis.set_ylabel("Predicted")
    if len(labels) <= MAX_WRITTEN_CLASSES + 1:
        ticks, names = np.arange(len(labels)), [figure_name(i, label, 16) for i, label in enumerate(labels)]
        axis.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(ticks, names)
        _write_cells(axis, values, highest)
    axis.spines[:].set_color("#c8ccd1")
    return save_figure(figure, path)


def _write_cells(axis: Axes, values: NDArray, highest: float) -> None:
    size = float(np.clip(120 / len(values), 6, 11))
    for row, column in zip(*np.nonzero(values), strict=True):
        value = values[row, column]
        text = f"{value:.2f}" if values.dtype.kind == "f" else f"{value}"
        color = "white" if value > 0.55 * highest else INK
        axis.text(column, row, text, ha="center", va="center", fontsize=size, color=color)
