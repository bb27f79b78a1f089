"""Why two runs that should be the same are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eyas.rehearsal.difference import Snapshot, changed, explain
from eyas.rehearsal.observe import own_values
from eyas.rehearsal.report import Place
from small_run import SmallRun

LINE = Place("/home/me/script.py", 3, "trainer.count += 1")


def test_a_value_that_is_another_or_missing_is_named() -> None:
    straight = Snapshot("a", {"T.kept": ("1", None), "T.count": ("2", LINE), "T.seen": ("[0]", LINE)})
    resumed = Snapshot("b", {"T.kept": ("1", None), "T.count": ("0", LINE)})
    assert changed(straight, resumed) == ["T.count", "T.seen"]
    why, place = explain(straight, resumed)
    assert why.startswith("T.count was 2 when the second epoch began, and 0 here.") and place == LINE
    why, _ = explain(straight, Snapshot("b", {"T.kept": ("1", None), "T.count": ("2", LINE)}))
    assert why.startswith("T.seen was [0] when the second epoch began, and nothing at all here.")
    assert changed(straight, straight) == []


def test_what_is_hung_on_a_trainer_is_seen_in_whatever_way_it_came_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text('def hang(t):\n    t.counted = 2\n    setattr(t, "other", [1])\n    t.held = object()\n')
    space: dict[str, Any] = {}
    exec(compile(script.read_text(), str(script), "exec"), space)
    run = SmallRun()
    space["hang"](run)
    found = own_values(run, script)
    assert found["SmallRun.counted"] == ("2", Place(str(script), 2, "t.counted = 2"))
    assert found["SmallRun.other"] == ("[1]", Place(str(script), 3, 'setattr(t, "other", [1])'))
    assert "SmallRun.held" not in found
