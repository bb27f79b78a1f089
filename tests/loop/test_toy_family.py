"""A family registered from a file outside the package does all that a stock one does, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eyas import YOLO
from eyas.checkpoint import CheckpointError, load_checkpoint
from eyas.models import RTDETRDetectionModel
from eyas.train import DetectionTrainer
from forked import forked_interpreters

MODULE = Path(__file__).with_name("toy_family.py")

# One process: by name, then all that the facade and the command line do; the last line is a report.
SESSION = """
import json, sys, toy_family
from eyas import YOLO
from eyas.api import run_train
from eyas.callbacks import Callback
from eyas.config import resolve

class Stop(Callback):
    def on_train_batch_end(self, trainer):
        if (trainer.epoch, trainer.step) == (1, 0):
            raise KeyboardInterrupt

options, folder, image = json.loads(sys.argv[1])
toy = YOLO("toy-8")
assert type(toy) is YOLO and toy.trainer_class is toy_family.ToyTrainer
result = toy.train(save_dir=f"{folder}/straight", **options)
assert type(toy.model) is toy_family.ToyNet and type(toy.trainer) is toy_family.ToyTrainer
assert toy.trainer.model.criterion.gains, "the recipe's gains reach the criterion"
assert toy.trainer.image_store(toy.trainer.train_loader.dataset.index).stretch
metrics = toy.val(plots=False, verbose=False, workers=0, device="cpu", save_dir=f"{folder}/val")
assert len(toy.predict(image, conf=0.0, device="cpu")[0].boxes) > 0
try:
    YOLO("toy-8").train(save_dir=f"{folder}/broken", callbacks=[Stop()], **options)
except KeyboardInterrupt:
    run_train(resolve(cli={"resume": f"{folder}/broken/weights/last.pt"}))
print(json.dumps([result.metrics["metrics/mAP50(B)"], metrics.box.map50, toy.trainer.plan.lr0, toy.trainer.args.box]))
"""

# Another process that imports the module, and has seen nothing else.
ELSEWHERE = """
import sys, toy_family
from eyas.api import YOLO
from eyas.cli import main
from eyas.families import family_of

toy = YOLO(sys.argv[1])
assert family_of(toy.model) is toy_family.TOY and type(toy.model) is toy_family.ToyNet
sys.exit(main(["val", f"model={sys.argv[1]}", "plots=false", "workers=0", f"save_dir={sys.argv[2]}"]))
"""


def python(*arguments: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(MODULE.parent), *filter(None, sys.path)])}
    command = [sys.executable, *arguments]
    with forked_interpreters():
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def given(digits_tiny: Path) -> dict[str, Any]:
    return {
        "data": str(digits_tiny), "imgsz": 64, "epochs": 2, "fraction": 0.25, "batch": 8, "workers": 0, "device": "cpu",
        "plots": False, "verbose": False,
    }  # fmt: skip


@pytest.fixture(scope="module")
def session(
    given: dict[str, Any], digits_tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[float]]:
    """Folder of the runs of one process, and what it reported."""
    folder = tmp_path_factory.mktemp("toy")
    image = next((digits_tiny.parent / "images").rglob("*.[pj][np]g"))
    out = python("-c", SESSION, json.dumps([given, str(folder), str(image)]), folder=folder)
    return folder, json.loads(out.splitlines()[-1])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "weights" / "last.pt")["state"]["model"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_it_trains_validates_predicts_and_resumes(session: tuple[Path, list[float]]) -> None:
    folder, (trained, measured, lr0, box) = session
    assert measured == pytest.approx(trained, abs=1e-9)
    assert (lr0, box) == (0.003, 5.0), "the recipe of the family"
    assert same(weights(folder / "straight"), weights(folder / "broken"))


def test_its_checkpoint_opens_where_the_module_is_imported_and_only_there(session: tuple[Path, list[float]]) -> None:
    best = session[0] / "straight" / "weights" / "best.pt"
    python("-c", ELSEWHERE, str(best), str(session[0] / "elsewhere"), folder=session[0])
    with pytest.raises(CheckpointError, match=r"best\.pt was not opened: .*arch is 'toy', and must be 'rtdetr'"):
        YOLO(best)


def test_two_processes_know_it_though_it_lies_in_the_script(given: dict[str, Any], tmp_path: Path) -> None:
    options = given | {"processes": 2, "epochs": 1, "save_dir": str(tmp_path / "run")}
    python(str(MODULE), json.dumps(options), folder=tmp_path)
    checkpoint = load_checkpoint(tmp_path / "run" / "weights" / "last.pt")
    assert checkpoint["yaml"]["arch"] == "toy" and checkpoint["state"]["trainer"].endswith("ToyTrainer")


def test_families_do_not_mix(options: Callable[..., dict[str, Any]], tiny_rtdetr: Path) -> None:
    """Families are told apart by name: a trainer that stretches images too does not train an RT-DETR."""

    class Toys(DetectionTrainer):
        family, stretch = "toy", True

    with pytest.raises(ValueError, match=r"Toys does not train a RTDETRDetectionModel; use RTDETRTrainer, or RTDETR\("):
        Toys(overrides=options(model=str(tiny_rtdetr))).train()
    assert RTDETRDetectionModel.stretch is Toys.stretch
