"""An image that goes bad under a run costs the image, not the run: named wherever people look, and counted on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from eyas.checkpoint import load_checkpoint
from eyas.data.bad_images import KIND, TooManyBadImages
from eyas.launch.interrupt import Interrupted
from eyas.train import DetectionTrainer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight images to train on, four to measure; one of each has a sound header and no picture behind it."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for i in range(count):
            image = tmp_path / "images" / split / f"{i}.png"
            cv2.imwrite(str(image), rng.integers(0, 255, (64, 64, 3), np.uint8))
            (tmp_path / "labels" / split / f"{i}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        spoil(tmp_path / "images" / split / "2.png")
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["thing"]}))
    return path


def spoil(image: Path) -> None:
    content = image.read_bytes()
    image.write_bytes(content[:60] + bytes(len(content) - 100) + content[-40:])


@pytest.fixture
def given(data: Path, tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    files = {"model": str(tiny_model), "data": str(data), "save_dir": str(tmp_path / "run")}
    return files | {
        "imgsz": 64,
        "batch": 4,
        "epochs": 2,
        "workers": 0,
        "plots": False,
        "verbose": False,
        "device": "cpu",
    }


class StopsInside(DetectionTrainer):
    """Is asked to stop in the middle of its second epoch, unless it goes on."""

    def answer_requests(self) -> bool:
        if self.resume_from is None and self.epoch == 1 and self.step == 0:
            self.save_and_leave()
        return super().answer_requests()


def test_a_run_goes_on_and_names_what_it_could_not_load(given: dict[str, Any], data: Path, tmp_path: Path) -> None:
    last = str(tmp_path / "run/weights/last.pt")
    lost = {split: str(data.parent / "images" / split / "2.png") for split in ("train", "val")}
    with pytest.raises(Interrupted):
        StopsInside(overrides=given).train()
    stored = load_checkpoint(last)["state"]["bad_images"]
    assert {split: list(bad) for split, bad in stored.items()} == {split: [path] for split, path in lost.items()}
    spoil(data.parent / "images/train/5.png")  # a second one is one too many, in whichever part of the run
    accepted = {"resume": last, "accept_data_change": True}
    with pytest.raises(TooManyBadImages, match=r"2 of 8 images .*2\.png.*5\.png"):
        StopsInside(overrides=accepted | {"epochs": 4}).train()
    trainer = StopsInside(overrides=accepted | {"epochs": 4, "bad_images": 0.5})
    trainer.train()
    assert sorted(trainer.bad_images["train"]) == [lost["train"], lost["train"].replace("2.png", "5.png")]
    report = json.loads((tmp_path / "run/dataset_report.json").read_text())["splits"]
    told = {split: [row["file"] for row in report[split]["problems"] if row["kind"] == KIND] for split in lost}
    assert told["train"] == sorted(trainer.bad_images["train"]) and told["val"] == [lost["val"]]
    page = (tmp_path / "run/report.html").read_text()
    assert "Images that could not be loaded" in page and all(path in page for path in lost.values())


def test_the_report_of_an_unbroken_run_has_them_all(given: dict[str, Any], data: Path, tmp_path: Path) -> None:
    result = DetectionTrainer(overrides=given).train()
    report = json.loads((tmp_path / "run/dataset_report.json").read_text())["splits"]
    for split in ("train", "val"):
        assert report[split]["problem_counts"] == {KIND: 1}
        assert report[split]["problems"][0]["file"] == str(data.parent / "images" / split / "2.png")
    assert result.detection is not None and len(result.detection.image_files) == 3


def test_none_is_allowed_where_that_was_asked_for(given: dict[str, Any]) -> None:
    with pytest.raises(TooManyBadImages, match="allows 0"):
        DetectionTrainer(overrides=given | {"bad_images": 0.0}).train()
