"""A detector around a pre-trained transformer, taught by another: what is trained, what is told, what goes along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from eyas.api import YOLO
from eyas.checkpoint import load_checkpoint
from eyas.cli import main
from eyas.train import RTDETRTrainer
from small_vit import masked_vit


@pytest.fixture(scope="module")
def run(digits_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> RTDETRTrainer:
    folder = tmp_path_factory.mktemp("vit")
    file = str(masked_vit(folder / "weights.pth"))
    options: dict[str, Any] = {"model": "rtdetr-r18", "backbone": "vit-tiny", "backbone_weights": file, "teacher": file}
    options |= {"accept_licences": ["CC-BY-NC-4.0"], "freeze": "backbone", "data": str(digits_tiny), "imgsz": 64}
    options |= {"fraction": 0.1, "batch": 8, "epochs": 1, "workers": 0, "device": "cpu", "plots": False}
    options |= {"verbose": False, "multi_scale": 0.0, "report": False, "save_dir": str(folder / "run")}
    trainer = RTDETRTrainer(overrides=options)
    trainer.train()
    return trainer


def test_what_was_pre_trained_stays_and_all_else_learns(run: RTDETRTrainer) -> None:
    stored = load_checkpoint(run.last)["state"]["model"]
    given = torch.load(run.args.backbone_weights)["model"]  # type: ignore[arg-type]
    assert torch.equal(stored["backbone.vit.blocks.1.mlp.fc1.weight"], given["blocks.1.mlp.fc1.weight"])
    assert not any("projector" in key for key in stored)
    (rate,) = (choice for choice in run.plan.decisions if choice.name == "backbone rate")
    assert rate.value == 0.5 and "small transformer" in rate.by
    row = run.history.rows[0]
    assert 0 < row["teacher/distance"] < 2 and row["teacher/weight"] == 5.0 and row["teacher/share"] > 0
    names = {group["name"] for group in run.optimizer.param_groups}
    assert {"teacher.projector", "backbone.weight"} <= names


def test_its_licence_goes_with_it(run: RTDETRTrainer, capsys: pytest.CaptureFixture[str]) -> None:
    opened = YOLO(run.best)
    assert [link.name.partition(":")[0] for link in opened.model.ancestors] == ["backbone", "teacher"]
    assert main(["info", str(run.best)]) == 0
    told = capsys.readouterr().out
    assert "CC-BY-NC-4.0" in told and "Apache-2.0" in told and "digits" in told
