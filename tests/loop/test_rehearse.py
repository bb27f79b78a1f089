"""`eyas rehearse` on files as users write them: green when all is well, else the line that breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from eyas import cli
from eyas.config import TrainOptions
from eyas.rehearsal.conduct import STAGES, rehearse, run_part
from eyas.rehearsal.report import Outcome
from eyas.rehearsal.sample import choose_sample

GOOD = """
import sys
from eyas import YOLO, Callback, DetectionTrainer
from eyas.callbacks import Freeze


class Counter(Callback):
    def __init__(self):
        self.seen = 0

    def on_train_batch_end(self, trainer):
        self.seen += 1

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class Louder(DetectionTrainer):
    def total_loss(self, loss):
        return 2 * super().total_loss(loss)


if __name__ == "__main__":
    model = YOLO(MODEL)
    model.add_callback("on_train_epoch_start", lambda trainer: print("epoch", trainer.epoch))
    result = model.train(
        trainer=Louder,
        callbacks=[Counter(), Freeze("backbone", epochs=5)],
        data=DATA,
        epochs=20,
        imgsz=64,
        batch=8,
        warmup_epochs=3,
        close_mosaic=10,
        patience=int(sys.argv[1]),
        lr_rules={"neck": 0.1},
    )
    assert result.best.exists()
    model.val(batch=2)
"""

BROKEN = """
import torch
from eyas import YOLO, Callback, DetectionModel, DetectionTrainer


class Sections(Callback):
    def on_train_epoch_end(self, trainer):
        trainer.model.sections()


class Scaled(DetectionModel):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gain = torch.nn.Parameter(torch.full((1,), 1.5))

    def predict(self, x):
        return super().predict(x * self.gain)


class Fading(DetectionTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps_done = 0

    def get_model(self, cfg=None, weights=None, verbose=True):
        return Scaled(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)

    def preprocess_batch(self, batch):
        batch = super().preprocess_batch(batch)
        self.widest = batch["bboxes"][:, 2].max()
        return batch

    def total_loss(self, loss):
        self.steps_done += 1
        return super().total_loss(loss) / self.steps_done


YOLO(MODEL).train(trainer=Fading, callbacks=[Sections()], data=DATA, epochs=3, imgsz=64, batch=4)
"""

LOCKED = """
import threading
from eyas import YOLO, Callback


class Locked(Callback):
    def __init__(self):
        self.lock = threading.Lock()


YOLO(MODEL).train(callbacks=[Locked()], data=DATA, epochs=3, imgsz=64)
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, tiny_model: Path, digits_tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a user's file into an empty folder that is the working one; MODEL and DATA are the tests' small ones."""

    def write_file(text: str) -> Path:
        path = tmp_path / "home" / "my_trainer.py"
        path.parent.mkdir()
        path.write_text(text.replace("MODEL", repr(str(tiny_model))).replace("DATA", repr(str(digits_tiny))))
        monkeypatch.chdir(path.parent)
        return path

    return write_file


def by_stage(outcomes: list[Outcome]) -> dict[str, Outcome]:
    return {outcome.stage: outcome for outcome in outcomes}


def code_of(outcome: Outcome) -> str | None:
    return outcome.place.code if outcome.place else None


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_a_good_trainer_is_green_in_every_stage(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(GOOD)
    code = cli.main(["rehearse", path.name, "batch=4", "--", "7"])
    out = capsys.readouterr().out
    assert code == 0, out
    rows = [line for line in out.splitlines() if " ok " in line]
    names = [name for stages in STAGES.values() for name in stages]
    assert [row[2 : 2 + len(name)] for row, name in zip(rows, names, strict=True)] == names
    assert "the same weights as without the interruption, bit for bit" in out
    assert "4 images of 64 px" in rows[-1] and "GiB" in rows[-1]
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # no run folder, no cache, nothing


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_each_stage_names_the_line_that_breaks_it(write: Write) -> None:
    path = write(BROKEN)
    found = by_stage(rehearse(path))
    assert {name for name, outcome in found.items() if outcome.status == "ok"} == {"one process", "save", "kill"}
    assert code_of(found["two processes"]) == "trainer.model.sections()"
    assert "has no attribute 'sections'" in found["two processes"].message
    assert code_of(found["resume"]) == "self.steps_done += 1"
    assert "Fading.steps_done was 2" in found["resume"].message
    assert code_of(found["load elsewhere"]) == "self.gain = torch.nn.Parameter(torch.full((1,), 1.5))"
    assert "model_class=Scaled" in found["load elsewhere"].message
    assert code_of(found["worst-case batch"]) == 'self.widest = batch["bboxes"][:, 2].max()'
    lines = path.read_text().splitlines()
    for outcome in found.values():
        if outcome.place:
            assert outcome.place.file == str(path)
            assert lines[outcome.place.line - 1].strip() == outcome.place.code


def run_alone(part: str, path: Path, digits: Path, **task: object) -> list[Outcome]:
    """Run one part with images that no earlier part has chosen."""
    folder = path.parent.parent / "parts"
    folder.mkdir()
    sample = choose_sample(TrainOptions(data=str(digits)), folder, batch=4)
    (folder / "sample.json").write_text(json.dumps(asdict(sample)))
    base = {"script": str(path), "arguments": [], "options": {}, "trainer": None, "imgsz": 64}
    return run_part(part, folder, base | task, limit=60)


@pytest.mark.slow
def test_what_cannot_travel_to_other_processes_is_named_with_its_line(write: Write, digits_tiny: Path) -> None:
    (outcome,) = run_alone("two", write(LOCKED), digits_tiny)
    assert outcome.failed
    assert code_of(outcome) == "self.lock = threading.Lock()"
    assert "cannot be pickled" in outcome.message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "rehearse takes one file, got none"),
        (["a.py", "b.py"], "rehearse takes one file, got a.py and b.py"),
        (["a.py", "epochz=3"], "unknown option 'epochz'"),
        (["a.py"], "there is no file"),
    ],
)
def test_wrong_usage_starts_nothing(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["rehearse", *arguments]) in (cli.USAGE, cli.FAILED)
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == ""
