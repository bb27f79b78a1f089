"""Whoever measures a model sees the same pixels: ``val`` gives a training's numbers again, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from eyas import YOLO
from eyas.checkpoint import load_checkpoint
from eyas.metrics.detection import DetMetrics
from eyas.train import DetectionTrainer, RTDETRTrainer

SHAPES = ((24, 64), (64, 30), (20, 64), (64, 64), (28, 64), (64, 24), (56, 64), (90, 120))  # many need half a square
IMAGES = 44  # more than share a rectangle, and no multiple of any batch
COMMON: dict[str, Any] = {"workers": 0, "device": "cpu", "plots": False, "verbose": False}


def draw(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Images of many shapes, each with a bright square or two on dark noise."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for i in range(count):
        h, w = SHAPES[i % len(SHAPES)]
        image = rng.integers(0, 60, (h, w, 3), dtype=np.uint8)
        rows = []
        for _ in range(1 + i % 2):
            side = int(rng.integers(8, 18))
            x, y = int(rng.integers(0, w - side)), int(rng.integers(0, h - side))
            image[y : y + side, x : x + side] = 230
            rows.append(f"0 {(x + side / 2) / w:.6f} {(y + side / 2) / h:.6f} {side / w:.6f} {side / h:.6f}\n")
        cv2.imwrite(str(folder / "images" / f"{i:02d}.png"), image)
        (folder / "labels" / f"{i:02d}.txt").write_text("".join(rows))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YAML of 12 + 44 images of mixed aspect ratios."""
    root = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    draw(root / "train", 12, rng)
    draw(root / "val", IMAGES, rng)
    path = root / "mixed.yaml"
    path.write_text(
        yaml.safe_dump({"path": str(root), "train": "train/images", "val": "val/images", "names": ["square"]})
    )
    return path


def found_by(metrics: DetMetrics | None) -> dict[str, Any]:
    """Every score and every match by image, and the numbers made of them."""
    assert metrics is not None
    return {
        "files": list(metrics.image_files),
        "scores": metrics.stats["conf"].tolist(),
        "matches": metrics.stats["tp"].tolist(),
        "numbers": {key: metrics.results_dict[key] for key in metrics.keys},
    }


@pytest.mark.parametrize(
    ("family", "batch", "processes"),
    [("yolo", 2, 1), ("yolo", 32, 1), ("yolo", 6, 2), ("rtdetr", None, 1), ("rtdetr", 6, 2)],
)
def test_val_gives_the_numbers_of_the_training(
    in_ranks: Any,
    mixed: Path,
    tiny_model: Path,
    tiny_rtdetr: Path,
    tmp_path: Path,
    family: str,
    batch: int | None,
    processes: int,
) -> None:
    model, trainer = (tiny_model, DetectionTrainer) if family == "yolo" else (tiny_rtdetr, RTDETRTrainer)
    options = {**COMMON, "model": str(model), "data": str(mixed), "imgsz": 64, "epochs": 1, "batch": batch}

    def train() -> dict[str, Any]:
        return found_by(trainer(overrides={**options, "save_dir": str(tmp_path / "run")}).train().detection)

    trained = train() if processes == 1 else in_ranks(train, processes)[0]
    best = tmp_path / "run" / "weights" / "best.pt"
    metrics = YOLO(best).val(project=str(tmp_path), **COMMON)
    assert len(set(trained["scores"])) > IMAGES // 2 and found_by(metrics) == trained
    stored = load_checkpoint(best)["train_metrics"]
    assert {key: stored[key] for key in metrics.keys} == trained["numbers"]
