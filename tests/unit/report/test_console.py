"""RunConsole: plain lines, the live line, and that losses are read only when shown."""

from __future__ import annotations

import io
import math
import os
import re
import sys
import threading

import pytest
from rich.console import Console

from eyas.device import peak_memory
from eyas.report.console import RunConsole, Table, duration

LOSSES = {"box_loss": 1.23456, "cls_loss": 0.5}
ROW = {
    "epoch": 1,
    "train/box_loss": 1.5,
    "train/cls_loss": 0.25,
    "metrics/precision(B)": 0.5,
    "metrics/recall(B)": 0.25,
    "metrics/mAP50(B)": 0.75,
    "metrics/mAP50-95(B)": math.nan,
    "val/box_loss": 2.0,
    "lr/pg0": 0.01,
    "lr/pg1": 0.02,
}


class Clock:
    """A clock that goes on only when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def make_kit(terminal):
    out = Console(file=io.StringIO(), force_terminal=terminal, width=160, highlight=False, _environ={"TERM": "xterm"})
    clock = Clock()
    return RunConsole("cpu", out=out, clock=clock), out, clock


@pytest.fixture(params=[False, True], ids=["plain", "terminal"])
def kit(request):
    return make_kit(request.param)


def plan(rows):
    return Table("Plan", ("plan", "value", "why"), rows, ("why",))


def text(out):
    return out.file.getvalue()


def test_losses_are_read_at_most_four_times_a_second(kit):
    console, out, clock = kit
    calls = []
    console.epoch_start(0, 2, 1000)
    for step in range(1000):
        clock.now += 0.01  # ten seconds in all
        console.batch(step, lambda: calls.append(1) or LOSSES, images=4, boxes=9)
    console.close()
    assert len(calls) == pytest.approx(40 if out.is_terminal else 1, abs=2)


def test_a_long_epoch_speaks_every_ten_seconds_when_plain():
    console, out, clock = make_kit(terminal=False)
    console.epoch_start(2, 12, 100)
    for step in range(100):
        clock.now += 0.3
        console.batch(step, lambda: LOSSES, images=16, boxes=44)
    lines = text(out).splitlines()
    assert len(lines) == 2
    for part in ("epoch 3/12", "34/100", "box 1.235", "cls 0.5", "boxes 44", "53.3 img/s", "GB", "ETA 0:20, run 4:50"):
        assert part in lines[0]


def test_rows_are_aligned_and_the_header_comes_once(kit):
    console, out, clock = kit
    for epoch in range(2):
        console.epoch_start(epoch, 2, 10)
        clock.now += 4
        console.batch(9, lambda: LOSSES, images=160, boxes=4)
        clock.now += 3  # validation
        console.epoch_end(ROW)
    plain = [line for line in _without_codes(text(out)).splitlines() if "img/s  " in line or "/2 " in line[:12]]
    header, first, second = (line for line in plain if "boxes" not in line)
    assert header.split() == ["epoch", "box", "cls", "P", "R", "mAP50", "mAP50-95", "lr", "img/s", "time"]
    assert first.split() == ["1/2", "1.5", "0.25", "0.5000", "0.2500", "0.7500", "-", "0.01", "40.0", "0:07"]
    assert len(header) == len(first) == len(second)


def test_an_epoch_without_validation_shows_dashes_and_new_metrics_get_a_column(kit):
    console, out, _ = kit
    console.epoch_start(0, 2, 1)
    console.epoch_end({"train/box_loss": 1.5, "lr/pg0": 0.01})
    console.epoch_end(ROW | {"metrics/F1(B)": 0.33})
    console.epoch_end({"train/box_loss": 1.5, "lr/pg0": 0.01})
    lines = _without_codes(text(out)).splitlines()
    assert lines[0].split() == ["epoch", "box", "lr", "img/s", "time"]
    assert lines[2].split()[-4:] == ["F1", "lr", "img/s", "time"]
    assert lines[4].split()[2:8] == ["-"] * 6


def test_start_message_and_finish_are_printed_as_they_are(kit):
    console, out, _ = kit
    console.start("yolo26n on digits", [plan([("batch", "16", "typed"), ("accumulate", "1", "short run")])])
    console.message("[bold] is no markup " + "x" * 200)
    console.finish(["best epoch 3", "runs/detect/train"])
    lines = [line.rstrip() for line in _without_codes(text(out)).splitlines()]
    assert lines[0] == "yolo26n on digits"
    assert lines[2:4] == ["  batch       16     typed", "  accumulate  1      short run"]
    assert "[bold] is no markup " + "x" * 200 in lines
    assert lines[-2:] == ["best epoch 3", "runs/detect/train"]


def test_disabled_prints_and_reads_nothing(kit):
    _, out, clock = kit
    console = RunConsole(out=out, enabled=False, clock=clock)
    console.start("x", [plan([("a", "b", "c")])])
    console.epoch_start(0, 1, 1)
    clock.now += 60
    console.batch(0, lambda: pytest.fail("losses were read"), images=1, boxes=1)
    console.epoch_end(ROW)
    console.finish(["x"])
    console.close()
    assert text(out) == ""


def test_the_live_line_uses_no_thread_and_close_gives_the_terminal_back(kit):
    console, out, clock = kit
    console.epoch_start(0, 1, 10)
    clock.now += 11
    console.batch(0, lambda: LOSSES, images=1, boxes=1)
    assert threading.active_count() == 1 or not any("Live" in type(t).__name__ for t in threading.enumerate())
    console.close()
    console.close()
    if out.is_terminal:
        assert text(out).rfind("\x1b[?25h") > text(out).rfind("\x1b[?25l")  # the cursor is visible again


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (3723, "1:02:03"), (-1, "0:00")]
)
def test_duration(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc for comparison")
def test_peak_memory_of_a_process_is_the_one_the_system_tells():
    with open("/proc/self/status", encoding="utf-8") as file:
        told = next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
    assert peak_memory("cpu") == pytest.approx(told, rel=0.05)
    assert peak_memory(None) > 2**20


def test_peak_memory_is_unknown_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert math.isnan(peak_memory("cpu"))


def _without_codes(raw):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw).replace("\r", "")


@pytest.mark.parametrize("width", [40, 50, 80])
def test_on_a_narrow_terminal_less_is_shown_and_nothing_is_cut(width):
    out = Console(file=io.StringIO(), force_terminal=True, width=width, highlight=False, _environ={"TERM": "xterm"})
    clock = Clock()
    console = RunConsole("cpu", out=out, clock=clock)
    console.start("yolo26n on digits", [plan([("lr0", "0.004", "0.004 for AdamW, x 1 for 8 images per step")])])
    console.epoch_start(99, 300, 1000)
    clock.now += 3600
    console.batch(99, lambda: LOSSES, images=160, boxes=4)
    console.epoch_end(ROW)
    drawn = re.split(r"[\r\n]+|\x1b\[[0-9;?]*[A-Za-z]", text(out))
    lines = [line.rstrip() for line in drawn if line.strip()]
    assert max(map(len, lines)) <= width
    live, header, row = lines[-3:]
    assert live.endswith("ETA 9:00:00, run 2009:00:00") and live.startswith("epoch 100/300") == (width > 40)
    assert {"epoch", "mAP50", "mAP50-95"} <= set(header.split()) and len(header.split()) == len(row.split())
    assert "lr" not in header.split() and ("time" in header.split()) == (width == 80)
