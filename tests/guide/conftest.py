"""A folder as the guide's scripts expect it: coco8.yaml with four images, weights called yolo26n.pt and rtdetr-l.pt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from eyas.checkpoint import FORMAT, save_checkpoint
from eyas.compat import hook
from eyas.compat.__main__ import run_script
from eyas.config import TrainOptions
from eyas.models import build_detector
from eyas.train import BaseTrainer
from eyas.train.venue import Venue, hosted_by

NAMES = {0: "red", 1: "green", 2: "blue"}
COLOURS = ((0, 0, 230), (0, 230, 0), (230, 0, 0))  # BGR


def conv(channels: int, kernel: int, stride: int) -> list[Any]:
    return [-1, 1, "Conv", [channels, kernel, stride]]


# The scripts train at 640 px for up to 20 epochs. This network has ten layers of backbone, as the guide counts them,
# and needs 50 ms for a step of four such images: its first layer leaves a sixteenth of the pixels.
TABLE = {
    "nc": len(NAMES),
    "end2end": True,
    "reg_max": 1,
    "backbone": [conv(8, 3, 4), conv(16, 3, 2), conv(16, 3, 2), conv(16, 3, 2), *(conv(16, 1, 1) for _ in range(6))],
    "head": [conv(16, 1, 1), [[2, 10], 1, "Detect", ["nc"]]],
}
RTDETR_TABLE = {
    "nc": len(NAMES),
    "backbone": TABLE["backbone"],
    "head": [conv(16, 1, 1), [[2, 10], 1, "RTDETRDecoder", ["nc", 16, 30, 2, 2, 2, 32]]],
}


def write_scene(folder: Path, split: str, number: int, rng: np.random.Generator) -> None:
    """Write an image of 128 x 96 px with two coloured rectangles, and its labels."""
    image, rows = np.full((96, 128, 3), 60, np.uint8), []
    for place in range(2):
        width, height = (int(side) for side in rng.integers(28, 48, 2))
        x, y = int(rng.integers(0, 128 - width)), int(rng.integers(0, 96 - height))
        cls = (number + place) % len(NAMES)
        image[y : y + height, x : x + width] = COLOURS[cls]
        rows.append(f"{cls} {(x + width / 2) / 128} {(y + height / 2) / 96} {width / 128} {height / 96}")
    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "images" / split / f"{number}.png"), image)
    (folder / "labels" / split / f"{number}.txt").write_text("\n".join(rows))


def write_weights(path: Path, table: dict[str, Any]) -> None:
    """Write random weights as a checkpoint."""
    torch.manual_seed(0)
    model = build_detector(table, nc=len(NAMES), names=NAMES, verbose=False)
    facts = {"yaml": model.yaml, "nc": model.nc, "names": dict(NAMES), "train_args": {}}
    save_checkpoint({"eyas": {"format": FORMAT, "version": "0"}, "model": dict(model.state_dict()), **facts}, path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a script."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(4):
            write_scene(tmp_path, split, number, rng)
    data = {"path": ".", "train": "images/train", "val": "images/val", "names": NAMES}
    (tmp_path / "coco8.yaml").write_text(yaml.safe_dump(data))
    write_weights(tmp_path / "yolo26n.pt", TABLE)
    write_weights(tmp_path / "rtdetr-l.pt", RTDETR_TABLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class WithoutPictures(Venue[BaseTrainer]):
    """Draws nothing: pictures take longer than these trainings. The script that has a process of its own draws."""

    def train_options(self, given: TrainOptions, trainer: type[BaseTrainer]) -> TrainOptions:
        given.plots = False
        return given


@pytest.fixture
def run(folder: Path) -> Iterator[Callable[[Path], dict[str, Any]]]:
    """Runs a script as ``python -m eyas.compat`` does, but without pictures, and returns its globals."""
    with hosted_by(WithoutPictures()):
        yield run_script
    hook.uninstall()


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every checkpoint that the trainer writes, one for each file, in order: what a run looked like meanwhile."""
    from eyas.train import trainer

    seen: list[dict[str, Any]] = []

    def save(checkpoint: dict[str, Any], *paths: Path) -> None:
        save_checkpoint(checkpoint, *paths)
        if "state" in checkpoint:
            kept = {
                "live": {key: value.clone() for key, value in checkpoint["state"]["model"].items()},
                "averaged": {key: value.clone() for key, value in checkpoint["model"].items()},
            }
            seen.append(kept)

    monkeypatch.setattr(trainer, "save_checkpoint", save)
    return seen
