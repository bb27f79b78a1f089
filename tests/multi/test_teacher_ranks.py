"""A teacher in two processes: one projector, one weight, measured over both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eyas.callbacks.teacher import Teacher
from eyas.files import digest
from eyas.models.backbones.vit import VITS
from eyas.models.teachers import FoundationTeacher
from eyas.optim import unwrap_model
from eyas.train import DetectionTrainer
from small_vit import weights


def test_both_processes_teach_alike(in_ranks: Any, digits_tiny: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = {"model": str(tiny_model), "data": str(digits_tiny), "imgsz": 64, "fraction": 0.25, "batch": 8}
    options |= {"workers": 0, "device": "cpu", "plots": False, "verbose": False, "val": False, "report": False}
    options |= {"epochs": 2, "save_dir": str(tmp_path / "run")}

    def story() -> dict[str, Any]:
        teacher = Teacher(FoundationTeacher(VITS["vit-tiny"], weights("vit-tiny"), ()))
        trainer = DetectionTrainer(overrides=options, _callbacks=[teacher])
        trainer.train()
        assert teacher.projector is not None
        rows = [{k: v for k, v in row.items() if k.startswith("teacher/")} for row in trainer.history.rows]
        return {
            "rows": rows,
            "weight": teacher.weight,
            "projector": digest(teacher.projector.named_parameters()),
            "network": digest(unwrap_model(trainer.model).named_parameters()),
        }

    first, second = in_ranks(story)
    assert first == second
    assert first["rows"][0]["teacher/weight"] == 5.0 != first["weight"] and 0 < first["rows"][0]["teacher/share"] < 100
