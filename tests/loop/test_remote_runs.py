"""Trainings on data that stay elsewhere: the same bits as on local files, straight or resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from eyas.callbacks import Callback
from eyas.checkpoint import load_checkpoint
from eyas.data.remote.kept import Kept
from eyas.train import DetectionTrainer
from far_away import in_memory

SET = {"batch": 8, "fraction": 0.5, "epochs": 2, "mixup": 0.3}


class Cut(Exception):
    pass


class CutAfterFirst(Callback):
    def on_model_save(self, trainer: Any) -> None:
        raise Cut


def weights(file: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(file)["model"]


def test_a_training_on_data_elsewhere_is_the_training_on_local_files(
    options: Any, digits_tiny: Path, tmp_path: Path
) -> None:
    near = DetectionTrainer(overrides=options(**SET, name="near")).train()
    url = f"{in_memory(digits_tiny.parent)}/{digits_tiny.name}"
    far = {"data": url, "remote_cache": f"{tmp_path}/kept:100kB", "workers": 2}  # not all images find room
    cut = DetectionTrainer(overrides=options(**SET, **far, name="far"), _callbacks=[CutAfterFirst()])
    with pytest.raises(Cut):
        cut.train()
    result = DetectionTrainer(overrides={"resume": str(cut.last)}).train()
    one, other = weights(near.last), weights(result.last)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    first = json.loads((result.save_dir / "plan.json").read_text())["decisions"][0]
    assert first["name"] == "data" and first["value"] == url and "up to 100 kB in" in first["by"]
    kept = Kept(tmp_path / "kept" / "eyas-remote")
    assert 0 < sum(file.stat().st_size for file in kept.folder.rglob("*") if file.is_file()) <= 100_000
