"""What a notebook shows while a model trains: parts that are replaced, bounded, and escaped."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from eyas import notebook
from eyas.log import print_table
from eyas.report.console import Table
from eyas.report.panel import ROWS, RunPanel
from eyas.report.progress import ConsoleReport
from small_run import SmallRun

EVIL = "<script>alert(1)</script>"


class Shown:
    """A screen that remembers what it shows, and how often."""

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self.times: dict[str, int] = {}
        self.texts: dict[str, str] = {}

    def show(self, part: str, html: str, text: str) -> None:
        self.parts[part], self.texts[part] = html, text
        self.times[part] = self.times.get(part, 0) + 1


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def train(panel: RunPanel, clock: Clock, epochs: int, best: int, batches: int = 100) -> None:
    history: list[dict[str, float]] = []
    for epoch in range(epochs):
        panel.epoch_start(epoch, epochs, batches)
        for step in range(batches):
            clock.now += 0.05
            panel.batch(step, lambda: {"box_loss": 1.5}, images=4, boxes=7)
        row = {"epoch": epoch + 1, "train/box_loss": 1.0 / (epoch + 1), "metrics/mAP50(B)": 0.5 + epoch / 1000}
        history.append(row)
        panel.draw(history, min(best, epoch + 1))
        panel.epoch_end(row)


def test_a_long_run_stays_small_and_keeps_its_best_epoch_in_sight() -> None:
    screen, clock = Shown(), Clock()
    panel = RunPanel(screen, clock)
    panel.start("yolo26n on digits", [Table("Plan", ("plan", "value", "why"), [("lr0", "0.1", EVIL)], ("why",))])
    train(panel, clock, epochs=300, best=7)
    panel.finish(["Best epoch 7.", EVIL])
    assert list(screen.parts) == ["plan", "epochs", "live"], "the order in which they stand"
    assert (screen.times["plan"], screen.times["epochs"]) == (1, 301)
    assert 300 * 8 < screen.times["live"] <= 300 * 10 + 1, "twice a second at most, and at the end"
    shown = re.findall(r"<tr><td>(\d+)/300</td>.*?<td>(●?)</td></tr>", screen.parts["epochs"])
    assert shown == [("7", "●"), *((str(n), "") for n in range(301 - ROWS, 301))]
    assert len(screen.parts["epochs"]) < 60_000 and screen.parts["epochs"].count("svg+xml;base64,") == 2
    assert "<details><summary>Plan</summary><table>" in screen.parts["plan"]
    assert not any("<script>" in html for html in screen.parts.values())
    assert screen.texts["live"] == f"Best epoch 7.\n{EVIL}", "those without HTML are told as well"


def test_the_live_line_tells_how_far_the_epoch_has_come() -> None:
    screen, clock = Shown(), Clock()
    panel = RunPanel(screen, clock)
    panel.epoch_start(2, 12, 100)
    for step in range(100):
        clock.now += 0.3
        panel.batch(step, lambda: {"box_loss": 1.23456}, images=16, boxes=44)
        if step == 33:
            break
    assert '<progress value="34" max="100"></progress>' in screen.parts["live"]
    for part in ("epoch 3/12", "34/100", "box 1.235", "boxes 44", "53.3 img/s", "ETA 0:20, run 4:50"):
        assert part in screen.parts["live"] and part in screen.texts["live"]


def test_an_epoch_without_a_validation_has_dashes_and_later_columns_are_added() -> None:
    screen = Shown()
    panel = RunPanel(screen)
    panel.epoch_start(0, 2, 1)
    panel.epoch_end({"train/box_loss": 1.5})
    panel.epoch_start(1, 2, 1)
    panel.epoch_end({"train/box_loss": 1.25, "metrics/mAP50(B)": math.nan, "metrics/F1(B)": 0.5})
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in screen.parts["epochs"].split("<tr>")[1:]]
    assert [row[:4] for row in rows] == [
        ["epoch", "box", "mAP50", "F1"], ["1/2", "1.5", "-", "-"], ["2/2", "1.25", "-", "0.5000"],
    ]  # fmt: skip


# -- where it is shown -------------------------------------------------------------------------------------------------
@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, str]]]:
    """What a kernel would show: id of an output -> its versions."""
    shown: dict[str, list[dict[str, str]]] = {}

    def display(bundle: dict[str, str], raw: bool, display_id: str, update: bool) -> None:
        assert raw and update == (display_id in shown)
        shown.setdefault(display_id, []).append(bundle)

    ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
    monkeypatch.setattr(ipython, "get_ipython", lambda: SimpleNamespace(kernel=object()), raising=False)
    monkeypatch.setattr(module, "display", display, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


def begin(run: SmallRun) -> None:
    run.fire("on_train_start")


def test_a_run_in_a_kernel_is_shown_and_one_elsewhere_is_printed(
    cell: dict[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = ConsoleReport()
    begin(SmallRun(report))
    assert isinstance(report.console, RunPanel) and capsys.readouterr().out == ""
    assert next(iter(cell.values()))[0]["text/plain"].startswith("Training: ")
    before = len(cell)
    print_table("Numbers", ["a", "b"], [["x", 1.0]])
    (table,) = list(cell.values())[before:]
    assert table == [{"text/html": table[0]["text/html"], "text/plain": "Numbers\na  b\nx  1"}]
    assert "<caption>Numbers</caption>" in table[0]["text/html"]

    monkeypatch.setenv(notebook.PLACE, "text")
    plain = ConsoleReport()
    begin(SmallRun(plain))
    assert not isinstance(plain.console, RunPanel) and "Training: " in capsys.readouterr().out
    quiet = ConsoleReport(enabled=False)
    monkeypatch.delenv(notebook.PLACE)
    begin(SmallRun(quiet))
    assert not isinstance(quiet.console, RunPanel)


def test_what_a_launched_process_shows_appears_in_the_cell(
    cell: dict[str, list[dict[str, str]]], tmp_path: Path
) -> None:
    threads = threading.active_count()
    with notebook.mirrored(tmp_path / "shown"):
        there: Any = notebook.screen()
        assert isinstance(there, notebook.Folder)
        there.show("first", "<b>1</b>", "1")
        there.show("second", "<b>2</b>", "2")
        there.show("first", "<b>3</b>", "3")
    assert notebook.PLACE not in os.environ
    assert {versions[-1]["text/plain"] for versions in cell.values()} == {"2", "3"}
    assert threading.active_count() == threads, "nobody looks on any more"


def test_parts_are_shown_in_the_order_in_which_they_were_left_and_once_a_version(tmp_path: Path) -> None:
    screen, seen = Shown(), dict[Path, int]()
    there = notebook.Folder(tmp_path)
    for part in ("zebra", "ape", "mule"):
        there.show(part, part, part)
    notebook.show_new(tmp_path, screen, seen)
    notebook.show_new(tmp_path, screen, seen)
    assert list(screen.parts) == ["zebra", "ape", "mule"] and set(screen.times.values()) == {1}
    there.show("ape", "another", "another")
    (tmp_path / ".half").write_text("{")
    notebook.show_new(tmp_path, screen, seen)
    assert screen.parts["ape"] == "another" and screen.times == {"zebra": 1, "ape": 2, "mule": 1}
    assert json.loads((tmp_path / "ape.json").read_text())["part"] == "ape"


def test_a_process_whose_cell_has_gone_goes_on(tmp_path: Path) -> None:
    notebook.Folder(tmp_path / "gone").show("plan", "", "")
    assert not (tmp_path / "gone").exists()


def test_without_a_notebook_nothing_is_mirrored(tmp_path: Path) -> None:
    with notebook.mirrored(tmp_path / "shown"):
        assert notebook.PLACE not in os.environ and notebook.screen() is None
    assert not (tmp_path / "shown").exists()
