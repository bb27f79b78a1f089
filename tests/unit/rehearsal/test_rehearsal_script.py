"""The user's file is run as Python would, its trainings are taken over, and everything is put back behind it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eyas import api
from eyas.config import TrainOptions
from eyas.rehearsal.script import Finished, imports, run_file
from eyas.train import BaseTrainer

CLASSES = """
from eyas import Callback, DetectionTrainer


class First(DetectionTrainer):
    pass


class Second(First):
    pass


class Watch(Callback):
    pass
"""


class Recorder:
    """A part that takes trainings over and ends the file at the first."""

    def __init__(self) -> None:
        self.started = 0
        self.trainers: list[BaseTrainer] = []
        self.real: TrainOptions | None = None

    def options(self, real: TrainOptions, trainer: type[BaseTrainer]) -> TrainOptions:
        self.real = real
        return TrainOptions.from_dict({**real.to_dict(), "epochs": 2}, real.sources())

    def train(self, trainer: BaseTrainer, go: Any) -> Any:
        self.started += 1
        self.trainers.append(trainer)
        raise Finished

    def validation_data(self) -> str | None:
        return None


@pytest.fixture
def main_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put `__main__`, arguments and paths back."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(sys, "argv", sys.argv[:])
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = BaseTrainer.__init__, BaseTrainer.train, api.run_folder, api.YOLO.run_val
    yield
    assert (BaseTrainer.__init__, BaseTrainer.train, api.run_folder, api.YOLO.run_val) == before


def run(tmp_path: Path, text: str, trainer: str | None = None, **options: str) -> Recorder:
    path, part = tmp_path / "mine.py", Recorder()
    path.write_text(text)
    run_file(path, ["--n", "3"], options, trainer, part)
    return part


@pytest.mark.usefixtures("main_module")
def test_a_script_runs_to_its_training_with_its_own_arguments(tmp_path: Path, tiny_model: Path) -> None:
    text = f"""
import sys
from eyas import YOLO, DetectionTrainer
assert __name__ == "__main__" and sys.argv[1:] == ["--n", "3"]
class Mine(DetectionTrainer):
    def __init__(self, cfg=None, overrides=None, _callbacks=None):
        super().__init__(cfg, overrides, _callbacks)
        self.mine = True
try:
    YOLO({str(tiny_model)!r}).train(trainer=Mine, data="digits-tiny", epochs=30)
except Exception:
    pass
raise SystemExit(5)
"""
    part = run(tmp_path, text)
    (trainer,) = part.trainers
    assert (type(trainer).__name__, vars(trainer)["mine"], trainer.args.epochs) == ("Mine", True, 2)
    assert part.real is not None and part.real.epochs == 30


@pytest.mark.usefixtures("main_module")
def test_a_trainer_that_is_called_directly_is_taken_over(tmp_path: Path, tiny_model: Path) -> None:
    text = f"""
from eyas import DetectionTrainer
DetectionTrainer(overrides={{"model": {str(tiny_model)!r}, "data": "digits-tiny", "epochs": 9}}).train()
"""
    part = run(tmp_path, text)
    assert part.trainers[0].args.epochs == 2


@pytest.mark.usefixtures("main_module")
def test_a_file_of_classes_trains_with_the_most_derived_and_all_callbacks(tmp_path: Path, tiny_model: Path) -> None:
    part = run(tmp_path, CLASSES, model=str(tiny_model), data="digits-tiny", lr0="0.002")
    (trainer,) = part.trainers
    assert type(trainer).__name__ == "Second"
    assert "Watch" in [type(callback).__name__ for callback in trainer.callbacks.callbacks]
    assert part.real is not None and (part.real.lr0, part.real.data) == (0.002, "digits-tiny")


@pytest.mark.usefixtures("main_module")
@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (CLASSES, {}, "must be told what to train: add model=... and data=..."),
        (CLASSES, {"model": "yolo26n"}, "add data=..."),
        (CLASSES, {"trainer": "Third", "model": "yolo26n", "data": "x"}, "trainer=Third: mine.py defines Second"),
        (CLASSES.replace("First)", "DetectionTrainer)"), {}, "defines the trainers First, Second; choose one"),
        ("value = 1", {}, "never calls train\\(\\), and defines no subclass"),
    ],
)
def test_a_file_that_says_too_little_is_told_what_is_missing(
    tmp_path: Path, text: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        run(tmp_path, text, **options)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from ultralytics import YOLO", True),
        ("import ultralytics.utils as u", True),
        ("def f():\n    from ultralytics.nn.tasks import DetectionModel", True),
        ("# import ultralytics\nimport eyas", False),
        ("from .ultra import x", False),
    ],
)
def test_imports_are_read_from_the_source(tmp_path: Path, text: str, found: bool) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert imports(path, "ultralytics") is found
