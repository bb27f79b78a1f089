"""The whole run at a glance: results.png from results.csv."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eyas.plot.style import ACCENT, SECOND, class_rgb, new_figure, save_figure, tidy

RATES = "learning rate"

Series = tuple[str, NDArray[np.float64], NDArray[np.float64]]
"""Label, epochs (n,), values (n,)."""


def save_results_picture(csv_path: Path, path: Path | None = None) -> Path:
    """Draw every column of a run's table over the epochs: losses of training and validation together, metrics, rates.

    Dots are the values, lines follow them smoothly. Epochs without a value (not validated) are left out.

    Args:
        csv_path: `results.csv`, with a column `epoch`, and columns such as `train/box_loss`, `val/box_loss`,
            `metrics/mAP50(B)`, `lr/pg0`.
        path: picture to write; None puts results.png beside the table.

    Raises:
        ValueError: the table has no rows, or no column `epoch`.
    """
    panels = _panels(_read(csv_path))
    columns = min(math.ceil(len(panels) / 2), 5) if len(panels) > 3 else max(len(panels), 1)
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(3.4 * columns, 2.9 * rows)
    for i, (title, lines) in enumerate(panels.items()):
        axis = figure.add_subplot(rows, columns, i + 1)
        tidy(axis, title=title, x="epoch" if i >= len(panels) - columns else "")
        for j, (label, epochs, values) in enumerate(lines):
            color = (ACCENT, SECOND)[j] if len(lines) <= 2 else class_rgb(j)
            exact = title == RATES  # a schedule has no noise to look through
            axis.plot(epochs, values, ".", markersize=4, color=color, alpha=0.45)
            axis.plot(epochs, values if exact else smoothed(values), linewidth=1.8, color=color, label=label)
        if len(lines) > 1:
            axis.legend(frameon=False, fontsize=8)
    return save_figure(figure, path if path is not None else csv_path.with_name("results.png"))


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian mean whose width grows with the run (1/30 of it, at least one epoch); ends use what is there."""
    n = len(values)
    sigma = max(n / 30, 1.0)
    offsets = np.arange(n)[:, None] - np.arange(n)[None]
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return weights @ values / weights.sum(axis=1)


def _read(csv_path: Path) -> dict[str, Series]:
    with csv_path.open(newline="", encoding="utf-8") as file:
        rows = [{key.strip(): value for key, value in row.items() if key} for row in csv.DictReader(file)]
    if not rows or "epoch" not in rows[0]:
        raise ValueError(f"{csv_path} has no rows with a column 'epoch' to draw")
    table = {}
    for key in rows[0]:
        points = np.array([(_number(row["epoch"]), _number(row.get(key))) for row in rows])
        points = points[np.isfinite(points).all(axis=1)]
        if key not in ("epoch", "time") and len(points):
            table[key] = (key, points[:, 0], points[:, 1])
    return table


def _number(text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.nan  # a column of words has nothing to draw


def _panels(table: dict[str, Series]) -> dict[str, list[Series]]:
    """Panel title -> its lines: train/x and val/x share a panel, so do all learning rates."""
    panels: dict[str, list[Series]] = {}
    for key, (_, epochs, values) in table.items():
        group, _, name = key.partition("/")
        if group in ("train", "val"):
            panels.setdefault(name, []).append((group, epochs, values))
        elif group == "lr":
            panels.setdefault(RATES, []).append((name, epochs, values))
        else:
            panels.setdefault(key.removeprefix("metrics/").removesuffix("(B)"), []).append((key, epochs, values))
    return panels
