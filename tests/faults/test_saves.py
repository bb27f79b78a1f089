"""Saving inside an epoch, going on by itself, and what a killed run leaves: nothing is lost beyond the promise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from eyas.callbacks import Callback
from eyas.checkpoint import CheckpointError, load_checkpoint, snapshot
from eyas.config import OptionValueError, TrainOptions
from eyas.config.values import duration
from eyas.files import hold, replacing, sweep
from eyas.launch import handover
from eyas.train import DetectionTrainer
from eyas.train import autosave as saving
from eyas.train.autosave import Autosave

SMALL = {"imgsz": 32, "epochs": 2, "batch": 4, "fraction": 0.25, "workers": 0, "device": "cpu"}
SMALL |= {"plots": False, "report": False, "verbose": False}


class Crash(Exception):
    pass


class CrashAt(Callback):
    """Ends the run as a kill would. Steps wait for what is being written: while it is, no other copy is taken."""

    def __init__(self, event: str, epoch: int = 0, step: int | None = None) -> None:
        self.event, self.epoch, self.step = event, epoch, step

    def crash(self, trainer: Any, event: str) -> None:
        trainer.autosave.settle()
        if event == self.event and trainer.epoch == self.epoch and self.step in (None, trainer.step):
            raise Crash

    def on_train_batch_start(self, trainer: Any) -> None:
        self.crash(trainer, "step")

    def on_train_end(self, trainer: Any) -> None:
        self.crash(trainer, "end")


def crash(options: dict[str, Any], *where: Any) -> DetectionTrainer:
    trainer = DetectionTrainer(overrides=options, _callbacks=[CrashAt(*where)])
    with pytest.raises(Crash):
        trainer.train()
    return trainer


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Compare what two runs have come to, bit for bit; clocks excepted."""
    for a, b in ((one["model"], other["model"]), (one["state"]["model"], other["state"]["model"])):
        assert all(torch.equal(a[key], b[key]) for key in a)
    for index, state in one["state"]["optimizer"]["state"].items():
        assert all(torch.equal(value, other["state"]["optimizer"]["state"][index][key]) for key, value in state.items())
    rows = [[{k: v for k, v in row.items() if k != "time"} for row in run["state"]["history"]] for run in (one, other)]
    assert rows[0] == rows[1]


def test_a_run_killed_inside_an_epoch_loses_no_more_than_the_interval_and_resumes_to_the_same_bits(
    digits_tiny: Path, short_model: Path, tmp_path: Path
) -> None:
    """Begun, killed inside an epoch, killed at its end, completed and called once more, always by the same command."""
    options = SMALL | {"model": str(short_model), "data": str(digits_tiny), "project": str(tmp_path)}
    straight = load_checkpoint(DetectionTrainer(overrides=options | {"name": "straight"}).train().last)
    again = options | {"name": "cut", "resume": "auto", "save_every": 1}
    trainer = crash(again, "step", 0, 3)
    kept = load_checkpoint(trainer.last)
    assert (kept["epoch"], kept["state"]["step"]) == (0, 3), "all but the step that was running"
    assert kept["state"]["history"] == []
    left = trainer.wdir / ".last.pt.0123abcd.tmp"
    left.touch()
    trainer = crash(again, "end", 1)
    assert not left.exists() and not (trainer.save_dir / "result.json").exists()
    same(straight, load_checkpoint(trainer.last))
    result = DetectionTrainer(overrides={"resume": str(trainer.last)}).train()
    same(straight, load_checkpoint(result.last))
    outcome = json.loads((trainer.save_dir / "result.json").read_text())
    assert outcome["epochs"] == 2 and outcome["metrics"] == pytest.approx(result.metrics)
    with pytest.raises(CheckpointError, match="is finished: 2 of 2 epochs"):
        DetectionTrainer(overrides={"resume": str(trainer.last)})
    assert DetectionTrainer(overrides=again).train().metrics == pytest.approx(result.metrics), "and is no failure"
    assert {path.name for path in tmp_path.iterdir()} == {"straight", "cut"}


def test_a_run_that_was_stopped_early_is_not_trained_on_after_a_crash_at_its_end(
    digits_tiny: Path, short_model: Path, tmp_path: Path
) -> None:
    class Enough(Callback):
        def on_train_epoch_end(self, trainer: Any) -> None:
            trainer.stop = True

    options = SMALL | {"model": str(short_model), "data": str(digits_tiny), "save_dir": str(tmp_path / "run")}
    with pytest.raises(Crash):
        DetectionTrainer(overrides=options, _callbacks=[Enough(), CrashAt("end")]).train()
    result = DetectionTrainer(
        overrides={"resume": str(tmp_path / "run/weights/last.pt")}, _callbacks=[Enough()]
    ).train()
    assert result.epochs == 1


def test_a_folder_that_is_deleted_under_a_run_is_made_again(
    digits_tiny: Path, short_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Deletes(Callback):
        def on_train_batch_end(self, trainer: Any) -> None:
            if (trainer.epoch, trainer.step) == (1, 1):
                shutil.rmtree(trainer.save_dir)

    options = SMALL | {"model": str(short_model), "data": str(digits_tiny), "save_dir": str(tmp_path / "run")}
    result = DetectionTrainer(overrides=options, _callbacks=[Deletes()]).train()
    assert "was deleted while the run wrote it" in caplog.text
    assert [row["epoch"] for row in result.history] == [1, 2] and load_checkpoint(result.last)["epoch"] == 1
    assert {"options.yaml", "plan.json", "results.csv", "result.json"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_a_snapshot_stays_what_it_is_and_holds_shared_numbers_once() -> None:
    weights = torch.zeros(3, 4)
    taken = snapshot({"a": weights, "b": [weights.detach(), {"n": 1}], "rows": [{"x": 1.0}]})
    weights.add_(1)
    assert torch.equal(taken["a"], torch.zeros(3, 4))
    assert taken["a"].data_ptr() == taken["b"][0].data_ptr() != weights.data_ptr()


def test_a_save_is_late_by_steps_or_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(saving.time, "monotonic", lambda: now)
    by_clock, by_steps = Autosave("2min", print), Autosave(2, print)
    never = Autosave(False, print)
    now += 119
    assert not by_clock.is_late() and by_clock.is_late(ahead=1.0), "a validation that would take too long counts"
    for save in (by_clock, by_steps, never):
        save.count()
    assert not by_steps.counted()
    by_steps.count()
    now += 1
    assert by_clock.is_late() and by_steps.counted() and not by_steps.is_late()
    assert not (never.is_late(1e9) or never.counted())
    by_clock.restart(), by_steps.restart()
    assert not (by_clock.is_late() or by_steps.counted())


def test_while_a_copy_is_written_no_other_is_taken() -> None:
    may_end = threading.Event()
    save = Autosave(1, lambda checkpoint: may_end.wait(10))
    save.begin({})
    assert save.is_writing()
    may_end.set()
    save.settle()
    assert not save.is_writing()


def test_what_cannot_be_written_inside_an_epoch_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(checkpoint: dict[str, Any]) -> None:
        raise CheckpointError("nothing was saved: nan.")

    save = Autosave(1, refuse)
    save.begin({})
    save.settle()
    assert "nothing was saved: nan. The run goes on, and tries again." in caplog.text


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15min", 900), ("1.5h", 5400)])
def test_times_with_units(text: str, seconds: float) -> None:
    assert duration(text) == seconds
    assert TrainOptions(save_every=text).save_every == text


@pytest.mark.parametrize("value", [True, 0, -1, "0s", "10", "10 days", 1.5])
def test_intervals_that_are_none(value: Any) -> None:
    with pytest.raises(OptionValueError, match="save_every"):
        TrainOptions(save_every=value)


# -- what dead processes leave -----------------------------------------------------------------------------------------
def test_temporary_files_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    old = time.time() - 3600
    for name in (".a.npz.0123abcd.tmp", ".mine.tmp"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (old, old))
    (tmp_path / ".young.pt.0123abcd.tmp").touch()
    with replacing(tmp_path / "b.npz") as file:
        os.utime(file.name, (old, old))
        assert [path.name for path in sweep(tmp_path)] == [".a.npz.0123abcd.tmp"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", ".young.pt.0123abcd.tmp", "b.npz"]
    assert [path.name for path in sweep(tmp_path, alone=True)] == [".young.pt.0123abcd.tmp"]


def test_hand_over_folders_of_dead_runs_go_and_those_in_use_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "gettempdir", lambda: str(tmp_path))
    for name in ("eyas-dead", "eyas-alive", "eyas-other"):
        (tmp_path / name).mkdir()
    os.close(handover.occupy(tmp_path / "eyas-dead"))
    handles = [handover.occupy(tmp_path / "eyas-alive") for _ in range(2)]
    assert handover.sweep_folders() == [tmp_path / "eyas-dead"]
    for handle in handles:
        os.close(handle)
    assert handover.sweep_folders() == [tmp_path / "eyas-alive"]
    assert [path.name for path in tmp_path.iterdir()] == ["eyas-other"], "it may be anybody's"


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    code = "import os, sys; from eyas.files import hold; assert hold(os.open(sys.argv[1], 0)); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    handle = os.open(tmp_path, os.O_RDONLY)
    assert hold(handle)
    os.close(handle)
