"""Several processes of a host that train on data behind a web server: each image comes once, and the bits are those of
local files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from eyas.checkpoint import load_checkpoint
from eyas.train import DetectionTrainer
from far_away import serving

SET = {"imgsz": 64, "batch": 8, "fraction": 0.25, "epochs": 2, "mosaic": 1.0, "optimizer": "SGD", "lr0": 0.01}
SET |= {"workers": 0, "device": "cpu", "plots": False, "verbose": False}


def test_two_ranks_fetch_each_image_once_and_train_as_on_local_files(
    in_ranks: Any, digits_tiny: Path, tiny_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("aiohttp")

    def train(data: str, name: str) -> None:
        asked = {**SET, "model": str(tiny_model), "data": data, "save_dir": str(tmp_path / name)}
        if name == "far":
            asked["remote_cache"] = f"{tmp_path}/kept:10MB"
        DetectionTrainer(overrides=asked).train()

    with serving(digits_tiny.parent) as server:  # which sends whole files only, so that every GET is all of one
        in_ranks(lambda: train(f"{server.url}/{digits_tiny.name}", "far"))
        images = {path: times for (method, path), times in server.asked.items() if method == "GET" and ".jpg" in path}
    assert set(images.values()) == {1}
    assert len(images) == 16 + 16, "a quarter to train on, and all to validate on"
    in_ranks(lambda: train(str(digits_tiny), "near"))
    near, far = (load_checkpoint(tmp_path / name / "weights" / "last.pt")["model"] for name in ("near", "far"))
    assert near.keys() == far.keys() and all(torch.equal(value, far[key]) for key, value in near.items())
