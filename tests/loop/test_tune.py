"""A study of real trainings: a trial that was stopped between two epochs goes on with what it had told the study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eyas.callbacks import Callback
from eyas.launch.interrupt import Interrupted
from eyas.run.protocol import Run
from eyas.tune import search
from eyas.tune.storage import opened

pytest.importorskip("optuna", reason="Optuna is in the dev extra")


class StopsOnce(Callback):
    """Ctrl-C behind the first epoch."""

    def on_fit_epoch_end(self, trainer: Run) -> None:
        if trainer.epoch == 0:
            raise KeyboardInterrupt


def test_a_trial_goes_on_with_what_it_had_told(tmp_path: Path, digits_tiny: Path, tiny_model: Path) -> None:
    options: dict[str, Any] = {"model": str(tiny_model), "data": str(digits_tiny), "imgsz": 64, "fraction": 0.25}
    options |= {"batch": 8, "epochs": 2, "workers": 0, "device": "cpu", "verbose": False}
    again: dict[str, Any] = {
        "trials": 1,
        "study": tmp_path / "study.db",
        "metric": "f1",
        "callbacks": lambda: [StopsOnce()],
    }
    space = {"lr0": {"low": 1e-3, "high": 1e-2, "log": True}}
    with pytest.raises(Interrupted, match="0 of 1 trials are done, and trial 0 is saved"):
        search(space, **again, **options)
    found = search(space, **again, **options)
    (row,) = found.rows
    assert (row.number, row.state, row.epochs) == (0, "complete", 2)
    with opened(tmp_path / "study.db", "max") as record:
        (trial,) = record.study.trials
        assert sorted(trial.intermediate_values) == [1, 2], "both halves told the same trial"
        assert row.value in trial.intermediate_values.values()
    assert (found.folder / "trial-0" / "weights" / "best.pt").exists()
