"""The labels of a training set at a glance: how many of each class, where they are, how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eyas.plot.style import FAINT, class_rgb, figure_name, new_figure, save_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BARS_NAMED = 30
CELLS = 50


def save_labels_picture(cls: NDArray, boxes: NDArray, names: Mapping[int, str], path: Path) -> Path:
    """Draw instances per class, box centres, and box sizes.

    Args:
        cls: (n,) class ids.
        boxes: (n, 4) cx cy w h, normalised by the image's size.
        names: class names by id.
        path: picture to write, for example `labels.jpg`.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    figure = new_figure(15, 4.8)
    bars, centres, sizes = figure.subplots(1, 3, width_ratios=[1.3, 1, 1])
    _draw_classes(bars, np.asarray(cls).astype(np.int64).reshape(-1), names)
    _draw_density(centres, boxes[:, 0], boxes[:, 1], title="Box centres", x="x / image width", y="y / image height")
    centres.invert_yaxis()  # as on the image: y grows downwards
    _draw_density(
        sizes, boxes[:, 2], boxes[:, 3], title="Box sizes", x="width / image width", y="height / image height"
    )
    return save_figure(figure, path)


def _draw_classes(axis: Axes, cls: NDArray, names: Mapping[int, str]) -> None:
    counts = np.bincount(cls, minlength=len(names))
    tidy(axis, title=f"{len(cls):,} boxes, {len(names)} classes", y="instances")
    drawn = axis.bar(np.arange(len(counts)), counts, color=[class_rgb(i) for i in range(len(counts))])
    axis.grid(visible=False, axis="x")
    if len(counts) <= MAX_BARS_NAMED:
        labels = [figure_name(i, names[i], 16) for i in range(len(counts))]
        axis.set_xticks(np.arange(len(counts)), labels, **_slanted(labels))
        axis.bar_label(drawn, fmt="{:,.0f}", fontsize=8, padding=2)
    else:
        axis.set_xlabel("class id")


def _slanted(labels: list[str]) -> dict[str, Any]:
    """Long names stand at an angle, their ends below the bars."""
    if max((len(label) for label in labels), default=0) <= 4:
        return {}
    return {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}


def _draw_density(axis: Axes, across: NDArray, down: NDArray, *, title: str, x: str, y: str) -> None:
    tidy(axis, title=title, x=x, y=y)
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    if not len(across):
        axis.text(0.5, 0.5, "no boxes", ha="center", va="center", color=FAINT)
        return
    counts, _, _ = np.histogram2d(np.clip(down, 0, 1), np.clip(across, 0, 1), bins=CELLS, range=[[0, 1], [0, 1]])
    shown = np.where(counts > 0, np.log10(np.maximum(counts, 1)) + 0.3, np.nan)  # log: a few cells hold most boxes
    axis.imshow(shown, origin="lower", extent=(0, 1, 0, 1), cmap="Blues", vmin=0, interpolation="nearest", zorder=2)
