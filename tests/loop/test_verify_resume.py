"""`eyas verify-resume`: equal bits after kills, or the line that a checkpoint leaves out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from eyas import cli
from eyas.rehearsal.difference import Snapshot
from eyas.rehearsal.interruptions import compared, verify_resume

COUNTS = """
from eyas import YOLO, Callback


class Fading(Callback):
    def __init__(self):
        self.steps = 0

    def adjust_loss(self, trainer, loss):
        self.steps += 1
        return loss / self.steps

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


YOLO(MODEL).train(callbacks=[Fading()], data=DATA, epochs=3, imgsz=64, batch=4, val=False, device="cpu", workers=0)
"""
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, tiny_model: Path, digits_tiny: Path) -> Write:
    def write_file(text: str) -> Path:
        path = tmp_path / "my_trainer.py"
        path.write_text(text.replace("MODEL", repr(str(tiny_model))).replace("DATA", repr(str(digits_tiny))))
        return path

    return write_file


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_a_run_whose_state_is_saved_ends_with_the_same_bits(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify-resume", str(write(COUNTS)), "kills=2", "epochs=2"]) == 0
    assert "are equal, bit for bit" in capsys.readouterr().out


def leave(folder: Path, run: str, weights: torch.Tensor, snapshots: list[Snapshot]) -> None:
    (folder / run / "weights").mkdir(parents=True)
    torch.save({"model": {"a": torch.ones(2)}, "state": [{"b": weights}]}, folder / run / "weights" / "last.pt")
    (folder / f"{run}-epochs").mkdir()
    for epoch, snapshot in enumerate(snapshots, 1):
        snapshot.write(folder / f"{run}-epochs" / f"{epoch}.json")


def test_the_first_tensor_and_the_first_epoch_that_differ_are_named(tmp_path: Path) -> None:
    same, steps = Snapshot("x", {"Fading.steps": ("0", None)}), [("4", None), ("0", None)]
    ends = [Snapshot("y", {"Fading.steps": value}) for value in steps]
    leave(tmp_path, "whole", torch.tensor([1.0, 2.0]), [same, ends[0]])
    leave(tmp_path, "interrupted", torch.tensor([1.0, 2.5]), [same, ends[1]])
    found = compared(tmp_path)
    assert found.failed and "another state.0.b" in found.message
    assert "Epoch 2 is the first" in found.message and "Fading.steps was 4" in found.message


def test_a_tensor_that_is_missing_is_a_difference(tmp_path: Path) -> None:
    leave(tmp_path, "whole", torch.tensor([0.0]), [])
    leave(tmp_path, "interrupted", torch.tensor([0.0]), [])
    assert compared(tmp_path).status == "ok"
    torch.save({"model": {"a": torch.ones(2)}, "state": []}, tmp_path / "interrupted" / "weights" / "last.pt")
    assert compared(tmp_path).failed


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["kills=0", "model=yolo26n", "data=digits-tiny"], "kills=0"),
        (["kills=two", "model=yolo26n", "data=digits-tiny"], "whole number"),
        (["model=yolo26n"], "data=..."),
        (["nobody.py"], "there is no file"),
        (["a.py", "b.py"], "one file"),
    ],
)
def test_what_cannot_be_tried_is_said_at_once(
    typed: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["verify-resume", *typed]) != 0
    assert said in capsys.readouterr().err


def test_kills_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="never killed"):
        verify_resume(None, {}, kills=0)
