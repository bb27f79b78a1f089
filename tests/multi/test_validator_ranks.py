"""A validation shared by several processes gives each of them, bit for bit, what one process finds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from eyas import dist
from eyas.data.dataset import EvalDataset
from eyas.data.dataset_yaml import check_dataset
from eyas.data.index import build_index
from eyas.data.loader import build_eval_loader
from eyas.data.store import ImageStore
from eyas.evaluate import DetectionValidator
from eyas.models import DetectionModel


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel(str(tiny_model), nc=10, verbose=False)
    model.head.init_biases(64)
    model.loss(  # makes the criterion
        {
            "img": torch.zeros(1, 3, 64, 64),
            "batch_idx": torch.zeros(0),
            "cls": torch.zeros(0, 1),
            "bboxes": torch.zeros(0, 4),
        }
    )
    return model


def validate(model: DetectionModel, data: Path, images: float, rank: int = 0, processes: int = 1) -> dict[str, Any]:
    description = check_dataset(data, splits=("train", "val"))
    index = build_index(description["val"], names=description["names"], fraction=images, split="val")
    dataset = EvalDataset(index, ImageStore(index, imgsz=64), imgsz=64, stride=32, batch=3)
    loader = build_eval_loader(dataset, workers=0, rank=rank, world_size=processes)
    validator = DetectionValidator(loader, names=description["names"], plots=True, coco=True, verbose=False)
    values = validator(SimpleNamespace(ema=None, model=model, device=torch.device("cpu"), amp_dtype=None))
    assert validator.metrics.confusion_matrix is not None
    return {
        "values": values,
        "files": validator.metrics.image_files,
        "stats": validator.metrics.stats,
        "confusion": validator.metrics.confusion_matrix.matrix,
        "image metrics": validator.metrics.box.image_metrics,
        "speed": validator.speed,
        "own batches": len(loader),
    }


@pytest.mark.parametrize(("images", "processes", "batches"), [(1.0, 2, [3, 3]), (0.25, 3, [0, 1, 1])])
def test_shares_are_the_whole(
    in_ranks: Any, model: DetectionModel, digits_tiny: Path, images: float, processes: int, batches: list[int]
) -> None:
    parts = in_ranks(lambda: validate(model, digits_tiny, images, dist.rank(), processes), processes)
    alone = validate(model, digits_tiny, images)
    assert [part["own batches"] for part in parts] == batches
    assert len(alone["stats"]["conf"]) and alone["confusion"].sum() and "val/box_loss" in alone["values"]
    for part in parts:
        for key in ("values", "files", "image metrics"):
            assert part[key] == alone[key]
        assert np.array_equal(part["confusion"], alone["confusion"])
        assert all(
            np.array_equal(part["stats"][key], alone["stats"][key], equal_nan=key.endswith("box"))
            for key in alone["stats"]
        )
        assert part["speed"] == parts[0]["speed"]


def test_a_loader_that_is_not_shared_is_not_counted_twice(
    in_ranks: Any, model: DetectionModel, digits_tiny: Path
) -> None:
    alone = validate(model, digits_tiny, 0.25)
    for part in in_ranks(lambda: validate(model, digits_tiny, 0.25)):
        assert part["values"] == alone["values"] and part["files"] == alone["files"]


def test_a_split_that_no_process_sees(in_ranks: Any, model: DetectionModel) -> None:
    def check() -> dict[str, float]:
        empty: Any = DataLoader([])  # type: ignore[arg-type]
        names = {i: str(i) for i in range(10)}
        return DetectionValidator(empty, names=names, verbose=False)(model=model)

    first, second = in_ranks(check)
    assert first == second and first["fitness"] == 0
