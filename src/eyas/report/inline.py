"""What a notebook shows of a run: curves as small drawings, results per class, images with what was found in them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from eyas.metrics.detection import DetMetrics
from eyas.plot.images import draw_boxes
from eyas.plot.inline import embedded, jpeg, side_by_side, sized
from eyas.report.charts import HEIGHT, LEFT, WIDTH, Panel, Row, colour, drawing, panels
from eyas.report.page import MOST_CLASSES
from eyas.report.worst import judged, readable
from eyas.tables import html_table

CURVES = 6  # drawings of a run
HEAD = 22  # height of the title above each
TILE = 224  # px of the longer side of an image
SHOWN = 6  # images
# Greys that can be read on white and on black: a picture does not know which of them is behind it.
STYLE = (
    "text{fill:#808890;font:11px system-ui,sans-serif}.grid{stroke:#80889055}.tick,.axis{stroke:#808890;fill:none}"
    ".curve{fill:none;stroke-width:2;stroke-linejoin:round}.best{stroke:#1a9c4c;stroke-dasharray:4 3}"
    "text.best{stroke:none;fill:#1a9c4c}text.title{font-size:13px}.title .name{font-weight:600}"
)


def curves(rows: Sequence[Row], best: int | None = None) -> str:
    """Return drawings of a run's history, metrics first; none of a single epoch.

    Args:
        rows: as in ``results.csv``.
        best: 1-based epoch to mark.
    """
    if len(rows) < 2:
        return ""
    made = [embedded("svg+xml", curve(panel, best), panel.title, WIDTH * 3 // 4) for panel in panels(rows)[:CURVES]]
    return side_by_side(made)


def curve(panel: Panel, best: int | None) -> bytes:
    """Return the content of an SVG file: the drawing, its title and the names of its lines above it."""
    inner, lines = drawing(panel, best)
    named = enumerate(lines) if len(lines) > 1 else ()
    words = [f'<tspan dx="10" style="fill:{colour(n)}">{escape(line.label)}</tspan>' for n, line in named]
    title = f'<text class="title" x="{LEFT}" y="-7"><tspan class="name">{escape(panel.title)}</tspan>{"".join(words)}'
    box = f"0 {-HEAD} {WIDTH} {HEIGHT + HEAD}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT + HEAD}" viewBox="{box}">'
        f"<style>{STYLE}</style>{title}</text>{inner}</svg>"
    ).encode()


def class_table(metrics: DetMetrics) -> str:
    """Return the results of every class that occurs, of the weakest alone where there are many."""
    rows = metrics.summary(decimals=4)
    if not rows:
        return ""
    kept = sorted(rows, key=lambda row: float(row["mAP50-95"]))[:MOST_CLASSES] if len(rows) > MOST_CLASSES else rows
    more = f", the {len(kept)} weakest of {len(rows)}" if len(kept) < len(rows) else ""
    return html_table(list(rows[0]), [list(row.values()) for row in kept], f"Results per class{more}")


def predictions(metrics: DetMetrics, most: int = SHOWN) -> str:
    """Return images of a validation, spread evenly over it, with what was found at the score of the best mean F1.

    They are read from their files as those are now; one that cannot be read is left out.
    """
    counts = metrics.box.counts
    if counts is None or not metrics.image_files or np.isnan(metrics.stats["pred_box"]).any():
        return ""
    tiles = []
    for place in np.unique(np.linspace(0, len(metrics.image_files) - 1, most).round().astype(int)).tolist():
        one = judged(metrics, counts, place, 0.0)
        if (pixels := readable(one.file)) is not None:
            small, scale = sized(pixels, TILE)
            drawn = draw_boxes(small, one.found * scale, one.found_cls, names=metrics.names, score=one.score)
            tiles.append(jpeg(drawn, f"{Path(one.file).name}: {one.missed} missed, {one.false} false"))
    return side_by_side(tiles)
