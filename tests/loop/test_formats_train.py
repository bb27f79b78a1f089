"""The same labels as YOLO text, COCO and Pascal VOC train to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eyas.data.convert import convert
from eyas.files import digest
from eyas.train import DetectionTrainer


def test_coco_and_voc_train_bit_for_bit_as_yolo_text_does(options: Any, digits_tiny: Path, tmp_path: Path) -> None:
    trained = {}
    for form in ("yolo", "coco", "voc"):
        data = digits_tiny
        if form != "yolo":
            convert(digits_tiny, form, tmp_path / form, images="link")
            data = tmp_path / form
        trainer = DetectionTrainer(overrides=options(epochs=1, fraction=0.25, data=str(data)))
        trainer.train()
        measured = {name: value for name, value in trainer.metrics.items() if name.startswith("metrics/")}
        trained[form] = digest(trainer.model.state_dict().items()), measured
    assert len(trained["yolo"][1]) >= 4
    assert trained["yolo"] == trained["coco"] == trained["voc"]
