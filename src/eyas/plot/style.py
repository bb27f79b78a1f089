"""What all pictures share: colours, and figures that belong to nobody but the caller (no pyplot, no global state)."""

from __future__ import annotations

import colorsys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCENT = "#1f5fbf"
SECOND = "#d9622b"
INK = "#20262e"
FAINT = "#9aa3ad"
DPI = 150
MAX_NAMED_CLASSES = 20
"""With more classes than this, curves are drawn without a legend entry each."""


def new_figure(width: float, height: float) -> Figure:
    """An Agg figure of width x height inches, at `DPI`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure and return its path."""
    figure.savefig(path)
    return path


def tidy(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Titles, light grid, and no frame at the top and right."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def class_rgb(cls: int) -> tuple[float, float, float]:
    """Colour of a class, r g b in [0, 1]: hues a golden section apart, so that neighbouring ids differ clearly."""
    hue = (0.58 + cls * 0.6180339887) % 1.0
    return colorsys.hsv_to_rgb(hue, 0.85 if cls % 2 == 0 else 0.65, 0.82 if cls % 3 else 0.7)


def class_bgr(cls: int) -> tuple[int, int, int]:
    """Colour of a class for OpenCV, 0..255."""
    r, g, b = class_rgb(cls)
    return round(255 * b), round(255 * g), round(255 * r)


def shortened(name: str, length: int = 24) -> str:
    """A name that fits a legend."""
    return name if len(name) <= length else name[: length - 1] + "…"


def figure_name(cls: int, name: str, length: int = 24) -> str:
    """A class name as figures write it: shortened, and by its id where the figures' font lacks a character of it."""
    return shortened(name, length) if all(map(_has_glyph, name)) else f"class {cls}"


@cache
def _has_glyph(character: str) -> bool:
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont("DejaVu Sans")).get_char_index(ord(character)) != 0
