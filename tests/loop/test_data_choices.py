"""What is decided on data reaches the whole run: training, validation, checkpoint, report, and what comes after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from eyas import YOLO
from eyas.callbacks import Callback
from eyas.config import resolve
from eyas.prove.effects import NoEffectError
from eyas.train import DetectionTrainer


@pytest.fixture(scope="module")
def twelve_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YAML of 16 images of 12 bits without a split for validation, whose labels are called 1 and 2."""
    root = tmp_path_factory.mktemp("deep")
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(16):
        image = rng.integers(800, 1600, (64, 64)).astype(np.uint16)
        image[16:48, 16:48] = 3700 if i else 4000
        Image.fromarray(image).save(root / f"images/train/{i}.png")
        (root / f"labels/train/{i}.txt").write_text(f"{1 + i % 2} 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["a", "b"]}))
    return root / "data.yaml"


def test_choices_hold_in_training_validation_and_prediction(twelve_bits: Path, options: Any, tiny_model: Path) -> None:
    given = options(data=str(twelve_bits), imgsz=64, epochs=1, batch=8, val_fraction=0.25, ids_start=1)
    model = YOLO(str(given.pop("model", tiny_model)))
    result = model.train(**given)
    splits = json.loads((result.save_dir / "dataset_report.json").read_text())["splits"]
    assert [splits[name]["images"] for name in ("train", "val")] == [12, 4]
    for split in splits.values():
        assert split["choices"] == {"label_ids": [1, 2], "val_fraction": 0.25, "white": {"whole": 4095}}
    assert splits["train"]["instances"].keys() == {"a", "b"}
    assert model.ckpt["white"] == {"whole": 4095}
    metrics = model.val(project=str(result.save_dir), workers=0, plots=False, verbose=False)
    assert metrics.results_dict["metrics/mAP50(B)"] == pytest.approx(result.metrics["metrics/mAP50(B)"])
    found = model.predict(twelve_bits.parent / "images/train/1.png")
    assert found[0].orig_img.max() == 3700 // 16
    other = {"train": str(twelve_bits.parent / "images/train"), "val": str(twelve_bits.parent / "images/train")}
    with pytest.raises(ValueError, match="ids start at 1"):  # what was said of one data set does not hold for another
        model.val(data={**other, "names": ["a", "b"]}, project=str(result.save_dir), workers=0, plots=False)
    for typed, ids_start in (({}, 1), ({"data": "other.yaml"}, None)):  # from the shell, too
        assert model.val_options(resolve(cli=typed, command="val")).ids_start == ids_start


def test_a_run_without_anything_to_measure(twelve_bits: Path, options: Any, tiny_model: Path) -> None:
    given = options(data=str(twelve_bits), imgsz=64, epochs=1, batch=8, ids_start=1, val=False)
    result = YOLO(str(given.pop("model", tiny_model))).train(**given)
    assert (result.best_epoch, result.metrics, result.fitness) == (0, {}, None)
    assert result.last.is_file() and not result.best.exists()
    settings = json.loads((result.save_dir / "effects.json").read_text())["settings"]
    assert settings["val"]["seen"] is False and settings["ids_start"]["seen"] == 1


class Waits(Callback):
    def on_val_end(self, trainer: Any) -> None:
        raise AssertionError("there is no validation")


@pytest.mark.parametrize(
    ("extra", "callbacks", "said"),
    [
        ({"best_by": ["f1"]}, [], r"(?m)^.*BestBy.*is never called: val=False, and the data has no split val"),
        ({}, [Waits()], r"(?m)^.*Waits.*on_val_end is never called"),
        ({"conf": 0.01}, [], r"conf=0.01 .* has no effect"),
    ],
)
def test_who_waits_for_a_validation_that_there_is_not_is_told_before_the_first_step(
    twelve_bits: Path, options: Any, extra: dict[str, Any], callbacks: list[Callback], said: str
) -> None:
    given = options(data=str(twelve_bits), imgsz=64, epochs=1, batch=8, ids_start=1, val=False, **extra)
    trainer = DetectionTrainer(overrides=given, _callbacks=callbacks)
    with pytest.raises(NoEffectError, match=said), trainer.prepared():
        pass


def test_data_without_a_split_for_validation_names_the_ways_on(twelve_bits: Path, options: Any) -> None:
    trainer = DetectionTrainer(overrides=options(data=str(twelve_bits)))
    with pytest.raises(ValueError, match=r"key 'val' .* is missing.*`val: 0\.1`.*val=false"), trainer.prepared():
        pass
