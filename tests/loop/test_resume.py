"""N epochs straight == k epochs, stop, resume: the same bits in weights, average, optimizer and log (law 4)."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eyas import YOLO
from eyas.callbacks import Callback
from eyas.checkpoint import CheckpointError, broken_parts, load_checkpoint
from eyas.launch.interrupt import Interrupted
from eyas.train import DetectionTrainer

DETAILS = {"batch": 8, "fraction": 0.5, "mixup": 0.3, "multi_scale": 0.3, "fliplr": 0.5, "epochs": 4}
OTHERS = (  # each is cut after the second of four epochs and must go on as if nothing had happened
    {"nbs": 16, "optimizer": "SGD", "lr0": 0.01, "gradient_checkpointing": True},
    {"ema": False, "val_every": 3, "optimizer": "MuSGD"},
    {"save_period": 1, "plots": True, "close_mosaic": 2, "amp": "bf16"},
)


class Crash(Exception):
    pass


class CrashAfterEpoch(Callback):
    """Ends the process's run where a power cut would: after the epoch's checkpoint was written."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_model_save(self, trainer: Any) -> None:
        if trainer.epoch == self.epoch:
            raise Crash


class HalvesRates(Callback):
    """Sets learning rates by hand, as scripts do, before the run is cut."""

    def on_train_epoch_start(self, trainer: Any) -> None:
        if trainer.epoch == 1:
            for group in trainer.optimizer.param_groups:
                group["lr"] *= 0.5


class InterruptAt(Callback):
    """Presses Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        self.at = epoch, step

    def on_train_batch_end(self, trainer: Any) -> None:
        if (trainer.epoch, trainer.step) == self.at:
            trainer.interrupted.raised = True


def assert_same_run(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Compare two last.pt files bit for bit; clocks and folders excepted."""
    for part, a, b in (
        ("average", one["model"], other["model"]),
        ("weights", one["state"]["model"], other["state"]["model"]),
    ):
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), f"{part}: {key}"
    states = one["state"]["optimizer"]["state"], other["state"]["optimizer"]["state"]
    assert states[0].keys() == states[1].keys()
    for index, state in states[0].items():
        for key, value in state.items():
            assert torch.equal(value, states[1][index][key]), f"optimizer: {index} {key}"
    assert one["state"]["optimizer"]["param_groups"] == other["state"]["optimizer"]["param_groups"]
    logs = [[{k: v for k, v in row.items() if k != "time"} for row in r["state"]["history"]] for r in (one, other)]
    assert logs[0] == logs[1]
    for key in ("best_fitness", "best_files", "plan", "updates", "epochs"):
        assert one["state"][key] == other["state"][key], key


@pytest.fixture(scope="module")
def straight(shared_options: Any) -> dict[str, Any]:
    result = DetectionTrainer(overrides=shared_options(**DETAILS, name="straight")).train()
    return load_checkpoint(result.last)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_after_a_crash_is_bit_identical(options: Any, straight: dict[str, Any], workers: int) -> None:
    trainer = DetectionTrainer(
        overrides=options(**DETAILS, name="cut", workers=workers), _callbacks=[CrashAfterEpoch(1)]
    )
    with pytest.raises(Crash):
        trainer.train()
    result = DetectionTrainer(overrides={"resume": str(trainer.last), "workers": workers}).train()
    assert result.save_dir == trainer.save_dir
    assert_same_run(straight, load_checkpoint(result.last))


@pytest.mark.parametrize("changes", OTHERS)
def test_other_settings_resume_bit_identically(options: Any, changes: dict[str, Any]) -> None:
    o = options(**{**DETAILS, **changes})
    whole = DetectionTrainer(overrides=o | {"name": "whole"}, _callbacks=[HalvesRates()]).train()
    trainer = DetectionTrainer(overrides=o | {"name": "cut"}, _callbacks=[HalvesRates(), CrashAfterEpoch(1)])
    with pytest.raises(Crash):
        trainer.train()
    again = {"resume": str(trainer.last), "plots": False}
    result = DetectionTrainer(overrides=again, _callbacks=[HalvesRates()]).train()
    assert_same_run(load_checkpoint(whole.last), load_checkpoint(result.last))
    groups = json.loads((result.save_dir / "effects.json").read_text())["groups"]
    assert {group["lr_by_hand"] for group in groups} == {0.5}
    assert result.best_epoch == whole.best_epoch


@pytest.mark.parametrize("step", [1, 3])
def test_ctrl_c_inside_an_epoch_saves_and_resumes_bit_identically(
    options: Any, straight: dict[str, Any], step: int
) -> None:
    trainer = DetectionTrainer(overrides=options(**DETAILS, name="cut off"), _callbacks=[InterruptAt(2, step)])
    with pytest.raises(Interrupted, match=rf"epoch 3 after {step + 1} of 4 batches.*with: (eyas train .*)") as stopped:
        trainer.train()
    typed = shlex.split(str(stopped.value).partition("with: ")[2])
    assert typed == ["eyas", "train", f"resume={trainer.last}"]
    result = DetectionTrainer(overrides={"resume": str(trainer.last)}).train()
    assert_same_run(straight, load_checkpoint(result.last))


def test_a_stop_after_the_weights_became_nan_keeps_the_last_good_epoch_and_says_so(options: Any) -> None:
    class Poison(Callback):
        def adjust_gradients(self, trainer: Any, parameters: Any) -> Any:
            if trainer.epoch == 1 and trainer.step == 1:
                parameters[0].grad.fill_(float("nan"))
                trainer.interrupted.raised = True
            return parameters

    trainer = DetectionTrainer(overrides=options(name="cut"), _callbacks=[Poison()])
    said = (
        r"epoch 2 after 2 of 4 batches, of which nothing is saved, for the weights .*last\.pt holds epoch 1\. Continue"
    )
    with pytest.raises(Interrupted, match=said):
        trainer.train()
    saved = load_checkpoint(trainer.last)
    assert saved["epoch"] == 0 and saved["state"]["step"] == 0 and broken_parts(saved) == []


def test_the_same_run_twice_is_the_same(options: Any, straight: dict[str, Any]) -> None:
    again = DetectionTrainer(overrides=options(**DETAILS, name="again", workers=2)).train()
    assert_same_run(straight, load_checkpoint(again.last))


def test_another_seed_is_another_run(options: Any, straight: dict[str, Any]) -> None:
    other = load_checkpoint(DetectionTrainer(overrides=options(**DETAILS, seed=1)).train().last)
    assert not torch.equal(other["model"]["model.0.conv.weight"], straight["model"]["model.0.conv.weight"])


def test_resume_true_takes_the_newest_run(options: Any) -> None:
    o = options(epochs=2)
    trainer = DetectionTrainer(overrides=o, _callbacks=[CrashAfterEpoch(0)])
    with pytest.raises(Crash):
        trainer.train()
    result = DetectionTrainer(overrides={"resume": True, "project": o["project"]}).train()
    assert result.epochs == 2 and result.save_dir == trainer.save_dir


def test_a_finished_run_says_so_and_may_be_extended(options: Any) -> None:
    result = DetectionTrainer(overrides=options(epochs=1)).train()
    with pytest.raises(CheckpointError, match=r"is finished: 1 of 1 epochs. Give epochs=2"):
        DetectionTrainer(overrides={"resume": str(result.last)})
    longer = DetectionTrainer(overrides={"resume": str(result.last), "epochs": 2}).train()
    assert [row["epoch"] for row in longer.history] == [1, 2]


def test_resume_refuses_what_would_be_another_training(options: Any) -> None:
    trainer = DetectionTrainer(overrides=options(), _callbacks=[CrashAfterEpoch(0)])
    with pytest.raises(Crash):
        trainer.train()
    with pytest.raises(ValueError, match="lr0 cannot change when a run is resumed"):
        DetectionTrainer(overrides={"resume": str(trainer.last), "lr0": 0.5})


def test_data_that_has_moved_is_taken_up_and_other_data_is_refused(
    options: Any, digits_tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(digits_tiny.parent, here)
    trainer = DetectionTrainer(
        overrides=options(data=str(here / digits_tiny.name), epochs=2, fraction=0.25), _callbacks=[CrashAfterEpoch(0)]
    )
    with pytest.raises(Crash):
        trainer.train()
    here.rename(there)
    moved = {"resume": str(trainer.last), "data": str(there / digits_tiny.name)}
    with (
        pytest.raises(ValueError, match=r"no such file.*\n.*has moved, add data="),
        DetectionTrainer(overrides={"resume": str(trainer.last)}).prepared(),
    ):
        pass
    image = next((there / "images" / "val").iterdir())
    content = image.read_bytes()
    image.write_bytes(content + b"\0")  # of the same shape, with the same objects
    with (
        pytest.raises(ValueError, match=r"not the data of this run in another place: .*val: other bytes in 1 image"),
        DetectionTrainer(overrides=moved).prepared(),
    ):
        pass
    image.write_bytes(content)
    assert DetectionTrainer(overrides=moved).train().epochs == 2
    assert "have changed" not in caplog.text
    assert load_checkpoint(trainer.last)["train_args"]["data"] == moved["data"]


def test_changed_data_are_refused_or_taken_on_demand(options: Any, digits_tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_tiny.parent, tmp_path / "set")
    trainer = DetectionTrainer(
        overrides=options(data=str(tmp_path / "set" / digits_tiny.name), epochs=3, fraction=0.25, report=True),
        _callbacks=[CrashAfterEpoch(0)],
    )
    with pytest.raises(Crash):
        trainer.train()
    index = trainer.train_loader.dataset.index
    image = Path(index.path(int(np.flatnonzero(index.objects())[0])))
    label = tmp_path / "set" / "labels" / "train" / f"{image.stem}.txt"
    label.write_text("0 0.5 0.5 0.125 0.125\n")
    resumed = {"resume": str(trainer.last)}
    said = rf"train: other labels of 1 image \({image.name}\)"
    with pytest.raises(ValueError, match=said), DetectionTrainer(overrides=resumed).prepared():
        pass
    going_on = DetectionTrainer(overrides=resumed | {"accept_data_change": True}, _callbacks=[CrashAfterEpoch(1)])
    with pytest.raises(Crash):
        going_on.train()
    notes = load_checkpoint(trainer.last)["state"]["notes"]
    assert len(notes) == 1 and notes[0].startswith("after epoch 1, other data were accepted: train: other labels of 1")
    last = DetectionTrainer(overrides=resumed)
    assert not last.args.accept_data_change, "allowed once, not for ever"
    assert last.train().epochs == 3 and last.notes == notes
    assert "other data were accepted" in (last.save_dir / "report.html").read_text()


def test_a_run_that_begins_has_no_data_to_compare_with(options: Any) -> None:
    with pytest.raises(ValueError, match="accept_data_change"):
        DetectionTrainer(overrides=options(accept_data_change=True))


def test_a_run_is_resumed_by_the_trainer_that_started_it(options: Any) -> None:
    class Mine(DetectionTrainer):
        pass

    trainer = Mine(overrides=options(epochs=2), _callbacks=[CrashAfterEpoch(0)])
    with pytest.raises(Crash):
        trainer.train()
    with pytest.raises(ValueError, match=r"started by .*Mine, and .*DetectionTrainer would train it differently"):
        DetectionTrainer(overrides={"resume": str(trainer.last)})
    result = YOLO(trainer.last).train(trainer=Mine, resume=True, verbose=False)
    assert result.epochs == 2 and result.save_dir == trainer.save_dir


def test_resume_from_weights_only_or_nothing(options: Any, tmp_path: Path) -> None:
    result = DetectionTrainer(overrides=options(epochs=1)).train()
    with pytest.raises(CheckpointError, match=r"weights only; resume from the last\.pt"):
        DetectionTrainer(overrides={"resume": str(result.best)})
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        DetectionTrainer(overrides={"resume": str(tmp_path / "nowhere.pt")})


def test_state_of_callbacks_survives(options: Any) -> None:
    class Counts(Callback):
        def __init__(self) -> None:
            self.batches = 0

        def on_train_batch_end(self, trainer: Any) -> None:
            self.batches += 1

        def state_dict(self) -> dict[str, Any]:
            return {"batches": self.batches}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.batches = state["batches"]

    trainer = DetectionTrainer(overrides=options(epochs=3), _callbacks=[Counts(), CrashAfterEpoch(0)])
    with pytest.raises(Crash):
        trainer.train()
    counts = Counts()
    DetectionTrainer(overrides={"resume": str(trainer.last)}, _callbacks=[counts]).train()
    assert counts.batches == 12
    with pytest.raises(ValueError, match=r"callbacks that this one lacks: Counts\.0"):
        DetectionTrainer(overrides={"resume": str(trainer.last), "epochs": 9}).train()
