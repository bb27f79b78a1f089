"""The picture of a search: every trial stands at its value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eyas.plot import search


def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[Any]:
    """Axes of the figure that would be saved."""
    figures: list[Any] = []
    monkeypatch.setattr(search, "save_figure", lambda figure, path: figures.append(figure) or path)
    given: dict[str, Any] = {"values": [0.1, 0.5, 0.3], "log": ["lr0"], "metric": "fitness", "best": 1}
    given["options"] = {"lr0": [1e-3, 1e-2, 1e-1], "optimizer": ["SGD", "AdamW", "SGD"]}
    search.save_search_picture(tmp_path / "a.png", **given | changes)
    return figures[0].axes


def test_the_best_trial_is_the_one_in_another_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate, word = drawn(tmp_path, monkeypatch)
    assert rate.lines[0].get_xydata().tolist() == [[1e-3, 0.1], [1e-2, 0.5], [1e-1, 0.3]]
    assert rate.lines[1].get_xydata().tolist() == [[1e-2, 0.5]]
    assert rate.lines[0].get_color() != rate.lines[1].get_color()
    assert (rate.get_xscale(), rate.get_title(), rate.get_ylabel()) == ("log", "lr0", "fitness")
    assert word.lines[0].get_xydata().tolist() == [[0, 0.1], [1, 0.5], [0, 0.3]]
    assert [label.get_text() for label in word.get_xticklabels()] == ["SGD", "AdamW"]


def test_truth_values_and_nothing_are_words(tmp_path: Path) -> None:
    assert search.placed([True, False, True]) == ([0.0, 1.0, 0.0], ["True", "False"])
    assert search.placed([None, 2, None]) == ([0.0, 1.0, 0.0], ["None", "2"])
    assert search.placed([1, 2.5]) == ([1.0, 2.5], [])
