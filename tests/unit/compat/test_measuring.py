"""Validators and predictors that a script makes itself, without a trainer, and what prediction returns to it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from eyas.compat.model import YOLO
from eyas.compat.predictor import DetectionPredictor
from eyas.compat.validator import DetectionValidator


def test_a_validator_opens_the_model_that_its_arguments_name(
    digits_tiny: Path, tiny_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "ten.yaml"
    model.write_text(yaml.safe_dump(yaml.safe_load(tiny_model.read_text()) | {"nc": 10}))
    given: dict[str, Any] = {"data": str(digits_tiny), "imgsz": 64, "plots": False, "workers": 0, "device": "cpu"}
    named = DetectionValidator(args=given | {"model": str(model)})()
    assert 0 <= named["metrics/mAP50(B)"] <= 1
    with pytest.raises(ValueError, match=r"needs a model: validator\(model='best\.pt'\)"):
        DetectionValidator(args=given)()


def test_a_predictor_says_what_to_use_for_arguments_of_the_incumbent(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match=r"use YOLO\('best\.pt'\)\.predict\('images', conf=0\.3\)"):
        DetectionPredictor(overrides={"model": "best.pt", "conf": 0.3})
    for given in ((), ("cfg.yaml",)):
        with pytest.raises(ValueError, match=r"DetectionPredictor\(model\.model\)"):
            DetectionPredictor(*given)
    found = DetectionPredictor(YOLO(tiny_model).model, imgsz=64)(np.zeros((64, 64, 3), np.uint8))
    assert len(found) == 1


def test_results_know_their_folder_and_are_a_table(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image, model = np.zeros((64, 64, 3), np.uint8), YOLO(tiny_model)
    (found,) = model.predict(image, imgsz=64, conf=0.0001, max_det=3)
    would_be = Path(found.save_dir)
    assert not would_be.exists()
    (saved,) = model.predict(image, imgsz=64, save=True)
    assert Path(saved.save_dir) == would_be and list(would_be.iterdir()) and saved.cpu()[:0].save_dir == saved.save_dir
    assert Path(model.predict(image, imgsz=64)[0].save_dir) != would_be
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert len(rows) == len(found) > 0
    assert [float(row["confidence"]) for row in rows] == [row["confidence"] for row in found.summary()]
    assert list(rows[0]) == ["name", "class", "confidence", "x1", "y1", "x2", "y2"]
    assert found[:0].to_csv().splitlines() == ["name,class,confidence,x1,y1,x2,y2"]
