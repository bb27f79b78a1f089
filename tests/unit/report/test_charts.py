"""Curves as SVG: points lie where the numbers say, axes are round and labelled, texts are escaped."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest

from eyas.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Line,
    Panel,
    chart,
    panels,
    span,
    thinned,
    ticks,
)

RATES = ({"lr/pg0": 0.1, "lr/pg1": 0.1}, {"lr/pg0": 0.05, "lr/pg1": 0.05}, {"lr/pg0": 0.0, "lr/pg1": 0.0})
ROWS = [
    {"epoch": 1, "time": 3.0, "train/box_loss": 2.0, "metrics/mAP50(B)": 0.25, "val/box_loss": 3.0, **RATES[0]},
    {"epoch": 2, "time": 5.0, "train/box_loss": 1.0, **RATES[1]},
    {"epoch": 3, "time": 9.0, "train/box_loss": 0.5, "metrics/mAP50(B)": 0.5, "val/box_loss": math.nan, **RATES[2]},
]


def drawing(panel: Panel, best: float | None = None) -> ET.Element:
    """Return the chart as a tree; HTML's empty <i> and <output> are well-formed here."""
    return ET.fromstring(chart(panel, best))


def points(tree: ET.Element) -> list[list[tuple[float, float]]]:
    """Return the corners of every curve in the units of the drawing."""
    paths = [e.attrib["d"] for e in tree.iter("path") if e.get("class") == "curve"]
    return [[(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", d)] for d in paths]


def test_panels_join_what_belongs_together() -> None:
    found = {panel.title: panel for panel in panels(ROWS)}
    assert next(iter(found)) == "mAP50"
    assert [line.label for line in found["box loss"].lines] == ["training", "validation"]
    assert found["box loss"].lines[1] == Line("validation", [1.0], [3.0])  # nan and missing cells are left out
    assert found["mAP50"].lines[0] == Line("all", [1.0, 3.0], [0.25, 0.5])
    assert found["learning rate"].lines == [Line("pg0, pg1", [1.0, 2.0, 3.0], [0.1, 0.05, 0.0])]  # equal lines are one
    assert found["time per epoch"].lines[0].y == [3.0, 2.0, 4.0]
    assert found["time per epoch"].unit == "seconds"


def test_a_metric_of_every_class_is_one_chart() -> None:
    rows = [{"epoch": 1, "metrics/F1(B)": 0.5, "metrics/F1(cat)": 0.25, "metrics/F1(dog (big))": 0.75}]
    (panel,) = panels(rows)
    assert (panel.title, [line.label for line in panel.lines]) == ("F1", ["all", "cat", "dog (big)"])


def test_points_lie_where_the_axes_say() -> None:
    x, y = [1.0, 2.0, 5.0], [0.0, 10.0, 4.0]
    tree = drawing(Panel("p", "u", [Line("l", x, y)]))
    (curve,) = points(tree)
    assert [p[0] for p in curve] == pytest.approx(np.interp(x, [1, 5], [LEFT, WIDTH - RIGHT]).tolist(), abs=0.06)
    # the ticks of the upright axis tell where its numbers are
    texts = [(float(e.text), float(e.attrib["y"]) - 4) for e in tree.iter("text") if e.get("text-anchor") == "end"]
    values, places = zip(*texts, strict=True)
    slope, start = np.polyfit(values, places, 1)
    assert [p[1] for p in curve] == pytest.approx([start + slope * value for value in y], abs=0.2)
    assert slope < 0  # larger values are higher up
    assert all(TOP - 0.1 <= p[1] <= HEIGHT - BOTTOM + 0.1 for p in curve)


def test_the_best_epoch_is_marked_where_it_is() -> None:
    panel = Panel("p", "u", [Line("l", [1.0, 2.0, 5.0], [0.0, 1.0, 2.0])])
    (line,) = (e for e in drawing(panel, best=3.0).iter("line") if e.get("class") == "best")
    assert float(line.attrib["x1"]) == pytest.approx((LEFT + WIDTH - RIGHT) / 2, abs=0.1)
    assert not [e for e in drawing(panel).iter() if e.get("class") == "best"]
    assert not [e for e in drawing(panel, best=9.0).iter() if e.get("class") == "best"]


def test_units_titles_and_the_word_epoch_are_written() -> None:
    texts = ["".join(e.itertext()) for e in drawing(Panel("title", "seconds", [Line("l", [1, 2], [3, 4])])).iter()]
    assert {"title", "seconds", "epoch"} <= set(texts)


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 0.0031, [0, 0.001, 0.002, 0.003]),
        (17.0, 103.0, [20, 40, 60, 80, 100]),
        (-0.3, 0.3, [-0.2, 0, 0.2]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, shown: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(shown, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_there_are_a_few_ticks_whatever_the_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = float(rng.normal() * 10.0 ** rng.integers(-6, 6))
    high = low + float(rng.uniform(0.1, 10) * 10.0 ** rng.integers(-6, 6))
    found = ticks(low, high)
    assert 1 <= len(found) <= 6
    assert all(low - 1e-6 * abs(low) - 1e-12 <= tick <= high + 1e-6 * abs(high) + 1e-12 for tick in found)


def test_epochs_are_whole_numbers() -> None:
    assert ticks(1.0, 3.0, whole=True) == [1, 2, 3]
    assert ticks(0.5, 1.5, whole=True) == [1]


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [2.0, 2.0, 2.0], [-1.0], [1e-30, 1e30]])
def test_any_range_can_be_drawn(values: list[float]) -> None:
    low, high = span(values, zero=True)
    assert low < high
    line = Line("l", [float(n) for n in range(1, len(values) + 1)], values)
    assert "nan" not in chart(Panel("p", "u", [line]))


def test_shares_that_are_all_zero_stay_above_it() -> None:
    assert span([0.0, 0.0], zero=True) == (0.0, 1.0)


def test_a_single_epoch_is_a_dot() -> None:
    tree = drawing(Panel("p", "u", [Line("l", [1.0], [0.5])]))
    assert [e.get("class") for e in tree.iter("circle")] == ["dot"]


def test_long_lines_are_thinned_and_keep_their_peaks_and_ends() -> None:
    y = np.sin(np.linspace(0, 30, 5000))
    y[3333], y[1234] = 9.0, -9.0
    line = thinned(Line("l", list(map(float, range(5000))), y.tolist()))
    assert len(line.x) <= MOST_POINTS
    assert (line.x[0], line.x[-1], max(line.y), min(line.y)) == (0.0, 4999.0, 9.0, -9.0)
    assert line.x == sorted(line.x)
    assert all(y[int(x)] == value for x, value in zip(line.x, line.y, strict=True))


def test_texts_are_escaped_and_the_script_is_told_the_numbers() -> None:
    evil = '<script>alert("x")</script>'
    text = chart(Panel(evil, evil, [Line(evil, [1.0, 2.0], [0.123456, 1.0]), Line("b", [1.0], [2.0])]))
    assert "<script" not in text
    svg: Any = ET.fromstring(text).find("svg")
    told = json.loads(svg.attrib["data-numbers"])
    assert told == {"x": [1.0, 2.0], "lines": [[evil, [1.0, 2.0], [0.1235, 1.0]], ["b", [1.0], [2.0]]]}


def test_nothing_is_drawn_of_nothing() -> None:
    assert chart(Panel("p", "u", [])) == ""
    assert panels([{"epoch": 1, "time": math.nan}]) == []
