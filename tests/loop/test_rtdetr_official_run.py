"""The official layout in the loop: rtdetr-r18 on the embedded data, and its weights opened elsewhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from eyas.api import RTDETR, YOLO
from eyas.checkpoint import load_checkpoint
from eyas.models.rtdetr.official import RTDETRNet
from eyas.train import RTDETRTrainer


@pytest.fixture(scope="module")
def r18(digits_tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> RTDETRTrainer:
    """A training of two steps, with what only options say."""
    options = {"model": "rtdetr-r18", "data": str(digits_tiny), "imgsz": 64, "fraction": 0.25, "batch": 8, "epochs": 1}
    options |= {"workers": 0, "device": "cpu", "plots": False, "verbose": False, "multi_scale": 0.0}
    options |= {"lr_rules": {"backbone": 0.5, "head.cls": 2.0}, "freeze": "backbone.p2", "class_weights": {"3": 2.0}}
    trainer = RTDETRTrainer(overrides=options | {"save_dir": str(tmp_path_factory.mktemp("r18") / "run")})
    trainer.train()
    return trainer


def test_it_trains(r18: RTDETRTrainer) -> None:
    row = r18.history.rows[0]
    assert all(
        math.isfinite(row[f"{split}/{name}_loss"]) for split in ("train", "val") for name in ("giou", "cls", "l1")
    )
    rates = {group["name"]: group["initial_lr"] for group in r18.optimizer.param_groups}
    base = 2e-3 * (0.75 / 20.094) ** (1 / 3)  # 20 million parameters
    assert rates["backbone.weight"] == pytest.approx(base / 2, rel=1e-3)
    assert rates["head.cls.weight"] == pytest.approx(base * 2, rel=1e-3)
    frozen = [name for name, p in r18.model.named_parameters() if not p.requires_grad]
    assert frozen and all(name.startswith("backbone.") for name in frozen)


def test_its_file_opens_as_what_it_is(r18: RTDETRTrainer) -> None:
    opened = YOLO(r18.best)
    assert type(opened) is RTDETR and type(opened.model) is RTDETRNet and opened.model.nc == 10
    stored = load_checkpoint(r18.best)["model"]
    assert [key for key, value in opened.model.state_dict().items() if not torch.equal(value, stored[key])] == []


def test_random_weights_have_trained_norms_and_given_ones_frozen_norms(monkeypatch: Any) -> None:
    assert RTDETRTrainer.table_to_train("rtdetr-r50", from_scratch=True)["frozen_norms"] is False
    assert RTDETRTrainer.table_to_train("rtdetr-r50", from_scratch=False)["frozen_norms"] is True
