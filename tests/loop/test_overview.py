"""``eyas plan`` and the head of a run: every decision with who made it, every group with how it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eyas import cli
from eyas.callbacks import Callback, ClipGradNorm, Freeze
from eyas.models import DetectionModel
from eyas.report.overview import GROUP_HEADER, decision_rows, group_rows
from eyas.train import DetectionTrainer

TINY = {"epochs": 2, "batch": 8, "fraction": 0.25}


def prepared(options: Any, cls: type[DetectionTrainer] = DetectionTrainer, *hooks: Callback, **changes: Any) -> Any:
    """Return a trainer that is ready for its first step."""
    trainer = cls(overrides=options(**(TINY | changes)), _callbacks=list(hooks))
    with trainer.prepared():
        return trainer


def groups(trainer: Any) -> dict[str, dict[str, Any]]:
    """Return rows by name of the group."""
    return {row[0]: dict(zip(GROUP_HEADER, row, strict=True)) for row in group_rows(trainer)}


def decisions(trainer: Any) -> dict[str, tuple[str, str]]:
    """Return (value, who) by decision."""
    return {name: (value, who) for name, value, who in decision_rows(trainer)}


# -- groups ------------------------------------------------------------------------------------------------------------
def test_a_row_for_every_group_and_every_parameter(options: Any) -> None:
    trainer = prepared(options, lr0=0.004, warmup_epochs=1, clip_grad_norm=0.1, warmup_bias_lr=0.05)
    rows = groups(trainer)
    assert sum(row["parameters"] for row in rows.values()) == sum(p.numel() for p in trainer.model.parameters())
    assert rows["weight"]["learning rate"] == "0 -> 0.004 -> 4e-05 linear"
    assert rows["bias"]["learning rate"] == "0.05 -> 0.004 -> 4e-05 linear"
    assert rows["weight"]["clip"] == "norm 0.1"
    assert rows["weight"]["EMA"] == "5% of the run"
    assert (rows["bn"]["decay"], rows["weight"]["decay"]) == ("0", f"{trainer.plan.weight_decay:.3g}")


def test_without_warm_up_average_or_clipping(options: Any) -> None:
    rows = groups(prepared(options, lr0=0.004, warmup_epochs=0, clip_grad_norm=0, ema=False, schedule="cosine"))
    assert rows["weight"]["learning rate"] == "0.004 -> 4e-05 cosine"
    assert (rows["weight"]["clip"], rows["weight"]["EMA"]) == ("off", "off")


def test_frozen_until_when(options: Any) -> None:
    rows = groups(prepared(options, DetectionTrainer, Freeze("backbone", epochs=1)))
    assert rows["weight"]["frozen"].endswith("until epoch 1")
    names = [name for name, _ in DetectionModel("yolo26n", verbose=False).named_parameters()]
    part, _, whole = rows["weight"]["frozen"].partition(" until")[0].partition(" of ")
    assert 0 < int(part) < int(whole) < len(names)


def test_parameters_frozen_by_hand_are_shown(options: Any) -> None:
    class Held(DetectionTrainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            model = super().get_model(cfg, weights, verbose)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_("bias" not in name)
            return model

    assert groups(prepared(options, Held))["bias"]["frozen"] == "all (requires_grad=False)"


def test_a_torch_scheduler_is_named(options: Any) -> None:
    rows = groups(prepared(options, lr0=0.004, schedule={"name": "StepLR", "step_size": 1, "per": "epoch"}))
    assert rows["weight"]["learning rate"].startswith("0.004 x StepLR(step_size=1) per epoch")


# -- decisions ---------------------------------------------------------------------------------------------------------
def test_who_decided(options: Any) -> None:
    class Own(DetectionTrainer):
        def validate(self) -> Any:
            return super().validate()

    class Halve(Callback):
        def adjust_loss(self, trainer: Any, loss: Any) -> Any:
            return loss / 2

    found = decisions(prepared(options, Own, ClipGradNorm(0.1), Halve(), lr0=0.01, mosaic=0.5, freeze="backbone"))
    assert found["lr0"] == ("0.01", "option (call)")
    assert found["mosaic"] == ("0.5", "option (call)")
    assert found["lrf"] == ("0.01", "default")
    assert found["clipping by norm"] == ("0.1", "component ClipGradNorm")
    assert found["adjust_loss"] == ("Halve.adjust_loss()", "component Halve")
    assert found["freeze"][1] == "option (call)"
    assert found["stop"][1] == "default"
    assert found["validate"][0].endswith("Own.validate()") and found["validate"][1] == "override"
    assert "forward" not in found


def test_the_head_of_a_run_shows_both_tables(options: Any, capsys: pytest.CaptureFixture[str]) -> None:
    DetectionTrainer(overrides=options(**(TINY | {"epochs": 1, "verbose": True}))).train()
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["plan", "value", "why"] in words
    assert " ".join(GROUP_HEADER).split() in words


# -- eyas plan ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def arguments(options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    given = options(**TINY)
    del given["project"], given["verbose"]
    return [f"{name}={value}" for name, value in given.items()]


def test_plan_prints_and_leaves_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", *arguments, "clip_grad_norm=0.5"]) == cli.OK
    out = capsys.readouterr().out
    assert "plan" in out and "learning rate" in out
    assert ["clipping", "by", "norm", "0.5", "option", "(command", "line)"] in [
        line.split() for line in out.splitlines()
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "where", [("project=mine", "name=first"), ("save_dir=mine/first",), ("project=mine", "exist_ok=true")]
)
def test_plan_takes_a_folder_that_it_does_not_make(
    arguments: list[str], where: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", *arguments, *where]) == cli.OK
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["plan", "profile"])
def test_a_run_that_goes_on_is_planned_and_profiled_without_being_touched(
    arguments: list[str], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eyas.train.profile.STEPS", 3)
    assert cli.main(["train", *arguments, f"save_dir={tmp_path / 'run'}"]) == cli.OK
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    last = tmp_path / "run" / "weights" / "last.pt"
    assert cli.main([command, f"resume={last}", "epochs=5"]) == cli.OK
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_plan_is_for_as_many_processes_as_asked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *arguments, "processes=2"]) == cli.OK
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["processes", "2", "option", "(command", "line)"] in words
    assert any(line[:1] == ["sync_bn"] and "2" in line for line in words)


def test_plan_fails_as_train_does(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *arguments, "freeze=bakbone"]) == cli.FAILED
    assert "backbone" in capsys.readouterr().err
    assert cli.main(["plan", "model=yolo26n"]) == cli.USAGE
    assert "plan needs data=" in capsys.readouterr().err
    assert cli.main(["plan", *arguments, "lr_0=1"]) == cli.USAGE
    assert list(tmp_path.iterdir()) == []


def test_plan_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--help"]) == cli.OK
    out = capsys.readouterr().out
    assert out.startswith("Usage: eyas plan model=NAME data=DATA") and "lr_rules" in out
