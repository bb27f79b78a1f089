"""Curves of a run as SVG text, made of numbers alone: axes with round ticks, labels, one epoch marked."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 400, 250  # of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 66, 12, 10, 40  # margins around the plot
MOST_POINTS = 400  # of a line: more than pixels in the plot
MOST_LINES = 16  # of a chart
Row = Mapping[str, float]


class Line(NamedTuple):
    """Points of a curve in the order of ``x``; both hold finite numbers."""

    label: str
    x: list[float]
    y: list[float]


class Panel(NamedTuple):
    """What one chart shows; ``unit`` is what its upright axis counts."""

    title: str
    unit: str
    lines: list[Line]


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the charts of a run's history: losses of training and validation together, metrics, speed, rates, others.

    Args:
        rows: as in ``results.csv``, with the column ``epoch``; cells without a finite number are left out.
    """
    found: dict[str, tuple[str, list[Line]]] = {}
    for key in dict.fromkeys(key for row in rows for key in row if key not in ("epoch", "time")):
        title, unit, label = placed(key)
        line = column(rows, key, label)
        if line.x:
            found.setdefault(title, (unit, []))[1].append(line)
    found |= {"time per epoch": ("seconds", [line])} if (line := seconds(rows)).x else {}
    made = [Panel(title, unit, without_doubles(lines)) for title, (unit, lines) in found.items()]
    return sorted(made, key=lambda panel: not panel.unit.startswith("share"))  # metrics first: what people look for


def placed(key: str) -> tuple[str, str, str]:
    """Return the chart's title, the unit, and the line's label of a column of ``results.csv``."""
    group, _, name = key.partition("/")
    if group in ("train", "val"):
        return name.replace("_", " "), "loss", "training" if group == "train" else "validation"
    if group == "lr":
        return "learning rate", "rate", name
    if group == "metrics":
        title, _, part = name.removesuffix(")").partition("(")  # of a metric per class, all classes are in one chart
        return title, "share (0 to 1)", "all" if part in ("B", "") else part
    return key, "value", name or key


def column(rows: Sequence[Row], key: str, label: str) -> Line:
    """Return the finite numbers of a column over the epochs."""
    points = [(float(row["epoch"]), float(row[key])) for row in rows if math.isfinite(row.get(key, math.nan))]
    return Line(label, [x for x, _ in points], [y for _, y in points])


def seconds(rows: Sequence[Row]) -> Line:
    """Return how long each epoch took, validation included; the clock of a resumed run goes on."""
    times = column(rows, "time", "an epoch")
    ends = [0.0, *times.y]
    spent = [(x, end - begin) for x, begin, end in zip(times.x, ends, times.y, strict=False) if end >= begin]
    return Line("an epoch", [x for x, _ in spent], [y for _, y in spent])


def without_doubles(lines: Iterable[Line]) -> list[Line]:
    """Return lines that differ, with the labels of those that lie on each other joined, as of rates of groups."""
    found: dict[tuple[tuple[float, ...], tuple[float, ...]], list[str]] = {}
    for line in lines:
        found.setdefault((tuple(line.x), tuple(line.y)), []).append(line.label)
    return [Line(", ".join(labels), list(x), list(y)) for (x, y), labels in found.items()]


def chart(panel: Panel, best: float | None = None) -> str:
    """Return a figure: the drawing, its title, and a legend where there are several lines.

    Numbers of the lines go with it as JSON, for the page's script that tells those under the pointer.

    Args:
        panel: what to draw; without points, an empty text is returned.
        best: epoch to mark.
    """
    drawn, lines = drawing(panel, best)
    if not lines:
        return ""
    across = span([x for line in lines for x in line.x], zero=False)
    told = {"x": across, "lines": [[line.label, line.x, [round_to(y) for y in line.y]] for line in lines]}
    more = len(panel.lines) - len(lines)
    return (
        f'<figure><figcaption>{escape(panel.title)}<output></output></figcaption><svg class="chart" role="img" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{escape(panel.title)} over epochs" '
        f'data-numbers="{escape(json.dumps(told, separators=(",", ":")))}">{drawn}'
        f'<line class="pointer" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="-9" x2="-9"/></svg>{legend(lines, more)}</figure>'
    )


def drawing(panel: Panel, best: float | None = None) -> tuple[str, list[Line]]:
    """Return what stands in a chart, as elements of SVG, and the lines that it shows; both empty without points."""
    lines = [thinned(line) for line in panel.lines[:MOST_LINES] if line.x]
    if not lines:
        return "", []
    across = span([x for line in lines for x in line.x], zero=False)
    up = span([y for line in lines for y in line.y], zero=True)
    drawn = [axes(across, up, panel.unit)]
    if best is not None and across[0] <= best <= across[1]:
        drawn.append(marked(best, across))
    drawn += [path(line, across, up, number) for number, line in enumerate(lines)]
    return "".join(drawn), lines


def thinned(line: Line) -> Line:
    """Return a line of at most ``MOST_POINTS``: of each stretch its lowest and its highest point, and both ends."""
    count = len(line.x)
    if count <= MOST_POINTS:
        return line
    size = math.ceil(2 * (count - 2) / (MOST_POINTS - 2))
    kept = {0, count - 1}
    for start in range(1, count - 1, size):
        stretch = range(start, min(start + size, count - 1))
        kept |= {min(stretch, key=line.y.__getitem__), max(stretch, key=line.y.__getitem__)}
    return Line(line.label, [line.x[i] for i in sorted(kept)], [line.y[i] for i in sorted(kept)])


def span(values: Sequence[float], *, zero: bool) -> tuple[float, float]:
    """Return the range of an axis; ``zero`` lets it begin there where that costs little of the height."""
    low, high = min(values), max(values)
    if zero and 0 <= low <= 0.5 * high:
        low = 0.0
    if zero and low == high == 0:
        return 0.0, 1.0
    if low == high:
        room = (abs(low) / 2 or 0.5) if zero else 0.5
        return low - room, high + room
    room = 0.04 * (high - low) if zero else 0.0
    return (low - room if low else 0.0), high + room


def ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Return round numbers inside a range, at most ``most``: multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power * factor for factor in (1, 2, 5, 10, 20)):
        step = max(step, 1.0) if whole else step
        inside = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        if len(inside) <= most:
            break
    return [n * step for n in inside]


def axes(across: tuple[float, float], up: tuple[float, float], unit: str) -> str:
    """Return grid, ticks with their numbers, and what both axes count."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in ticks(*up):
        y = to_y(value, up)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    for value in ticks(*across, whole=True):
        x = to_x(value, across)
        parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:.6g}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">epoch</text>')
    middle = (TOP + bottom) / 2
    parts.append(f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{escape(unit)}</text>')
    return "".join(parts)


def marked(epoch: float, across: tuple[float, float]) -> str:
    """Return the line of the best epoch, with its word on the side where there is room."""
    x = to_x(epoch, across)
    side = ("end", -4) if x > (LEFT + WIDTH - RIGHT) / 2 else ("start", 4)
    word = f'<text class="best" x="{x + side[1]:.1f}" y="{TOP + 10}" text-anchor="{side[0]}">best: {epoch:g}</text>'
    return f'<line class="best" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>{word}'


def path(line: Line, across: tuple[float, float], up: tuple[float, float], number: int) -> str:
    """Return a curve; a single point is a dot."""
    points = [f"{to_x(x, across):.1f} {to_y(y, up):.1f}" for x, y in zip(line.x, line.y, strict=True)]
    if len(points) == 1:
        x, y = points[0].split()
        return f'<circle class="dot" r="3" cx="{x}" cy="{y}" style="fill:{colour(number)}"/>'
    return f'<path class="curve" d="M{"L".join(points)}" style="stroke:{colour(number)}"/>'


def legend(lines: Sequence[Line], more: int) -> str:
    """Return the names of several lines beside their colours."""
    if len(lines) < 2:
        return ""
    names = [f'<span><i style="background:{colour(n)}"></i>{escape(line.label)}</span>' for n, line in enumerate(lines)]
    return f'<p class="legend">{"".join(names)}{f" and {more} more" if more > 0 else ""}</p>'


def colour(number: int) -> str:
    """Return the colour of a line: hues a golden section apart, readable on white and on black."""
    return f"hsl({(215 + 137.508 * number) % 360:.0f} 75% 46%)"


def to_x(value: float, across: tuple[float, float]) -> float:
    """Place of an epoch in the drawing."""
    return LEFT + (value - across[0]) / (across[1] - across[0]) * (WIDTH - LEFT - RIGHT)


def to_y(value: float, up: tuple[float, float]) -> float:
    """Place of a value in the drawing, whose rows count downwards."""
    return HEIGHT - BOTTOM - (value - up[0]) / (up[1] - up[0]) * (HEIGHT - TOP - BOTTOM)


def round_to(value: float) -> float:
    """A number with the four digits that people read."""
    return float(f"{value:.4g}")
