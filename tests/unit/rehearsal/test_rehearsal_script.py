"""The user's file is run as Python would, a host has its trainings, and is gone behind it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eyas.config import TrainOptions
from eyas.rehearsal.script import Finished, Host, imports, run_file
from eyas.train import BaseTrainer, TrainResult
from eyas.train.venue import venue

CLASSES = """
from eyas import Callback, DetectionTrainer


class First(DetectionTrainer):
    pass


class Second(First):
    pass


class Watch(Callback):
    pass
"""


class Recorder(Host):
    """Has the trainings of a file, and ends it at the first."""

    def __init__(self, away: Path) -> None:
        super().__init__()
        self.away = away
        self.trainers: list[BaseTrainer] = []
        self.real: TrainOptions | None = None

    def train_options(self, given: TrainOptions, trainer: type[BaseTrainer]) -> TrainOptions:
        self.real = given
        return TrainOptions.from_dict({**given.to_dict(), "epochs": 2}, given.sources())

    def train(self, trainer: BaseTrainer, go: Callable[[], TrainResult]) -> TrainResult:
        self.started += 1
        self.trainers.append(trainer)
        raise Finished

    def folder(self, options: TrainOptions, default_name: str) -> AbstractContextManager[Path]:
        self.away.mkdir()
        return nullcontext(self.away)


@pytest.fixture
def main_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put `__main__`, arguments and paths back."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(sys, "argv", sys.argv[:])
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = venue()
    yield
    assert venue() is before


def run(tmp_path: Path, text: str, trainer: str | None = None, **options: str) -> Recorder:
    path, part = tmp_path / "mine.py", Recorder(tmp_path / "away")
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
def test_an_overridden_train_is_run_up_to_the_training_itself(tmp_path: Path, tiny_model: Path) -> None:
    text = f"""
from eyas import DetectionTrainer
class Mine(DetectionTrainer):
    def train(self):
        self.mine = True
        return super().train()
Mine(overrides={{"model": {str(tiny_model)!r}, "data": "digits-tiny", "epochs": 9}}).train()
"""
    part = run(tmp_path, text)
    assert vars(part.trainers[0])["mine"] is True


@pytest.mark.usefixtures("main_module")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the end of the file, in a thread
def test_a_training_in_a_thread_is_taken_over_too(tmp_path: Path, tiny_model: Path) -> None:
    text = f"""
import threading
from eyas import YOLO
thread = threading.Thread(target=lambda: YOLO({str(tiny_model)!r}).train(data="digits-tiny", epochs=9))
thread.start()
thread.join()
"""
    part = run(tmp_path, text)
    assert (part.started, part.trainers[0].args.epochs) == (1, 2)


@pytest.mark.usefixtures("main_module")
def test_what_is_predicted_is_written_where_the_host_wants_it(tmp_path: Path, tiny_model: Path) -> None:
    cv2.imwrite(str(tmp_path / "black.jpg"), np.zeros((64, 64, 3), np.uint8))
    text = f"""
from eyas import YOLO
model = YOLO({str(tiny_model)!r})
model.predict({str(tmp_path / "black.jpg")!r}, imgsz=64, device="cpu", save=True, save_dir={str(tmp_path / "mine")!r})
model.train(data="digits-tiny", epochs=9)
"""
    part = run(tmp_path, text)
    assert [file.name for file in part.away.iterdir()] == ["black.jpg"]
    assert not (tmp_path / "mine").exists()


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
