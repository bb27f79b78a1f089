"""What the tests of the seven needs share: tiny trainings to compare, and one of two processes from a user's script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from eyas.callbacks import Callback
from eyas.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from eyas.models import DetectionModel
from eyas.optim import unwrap_model
from eyas.train import DetectionTrainer, RTDETRTrainer
from forked import forked_interpreters

SOURCE = Path(__file__).parents[2] / "src"


# -- tiny trainings ----------------------------------------------------------------------------------------------------
@dataclass
class Run:
    """A training that is over; its files are read when they are asked for."""

    trainer: DetectionTrainer
    result: Any

    @cached_property
    def last(self) -> dict[str, Any]:
        return load_checkpoint(self.result.last)

    @cached_property
    def best(self) -> dict[str, Any]:
        return load_checkpoint(self.result.best)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The live model's."""
        return self.last["state"]["model"]

    @property
    def effects(self) -> dict[str, Any]:
        """What ``effects.json`` says."""
        return json.loads((self.result.save_dir / "effects.json").read_text())


class Tiny:
    """Makes trainings of two epochs over sixteen scenes, two steps each."""

    def __init__(self, model: Path, data: Path, folder: Path, stock: type[DetectionTrainer] = DetectionTrainer) -> None:
        self.model, self.data, self.folder, self.stock = str(model), str(data), folder, stock
        self.number = 0

    def options(self, **changes: Any) -> dict[str, Any]:
        self.number += 1
        base = {
            "model": self.model,
            "data": self.data,
            "imgsz": 64,
            "fraction": 0.25,
            "batch": 8,
            "epochs": 2,
            "workers": 0,
            "device": "cpu",
            "plots": False,
            "save": False,  # only the best weights and the last; writing all costs a third of so small a run
            "verbose": False,
            "save_dir": str(self.folder / str(self.number)),
        }
        return base | changes

    def trainer(
        self, cls: type[DetectionTrainer] | None = None, /, *components: Callback, **changes: Any
    ) -> DetectionTrainer:
        """A trainer that has not started, of the stock class unless another is given."""
        return (cls or self.stock)(overrides=self.options(**changes), _callbacks=list(components))

    def train(self, cls: type[DetectionTrainer] | None = None, /, *components: Callback, **changes: Any) -> Run:
        return self.finish(self.trainer(cls, *components, **changes))

    def resume(self, cls: type[DetectionTrainer], stopped: DetectionTrainer, *components: Callback) -> Run:
        return self.finish(cls(overrides={"resume": str(stopped.last)}, _callbacks=list(components)))

    def prepare(self, trainer: DetectionTrainer) -> DetectionTrainer:
        """Build everything up to the first step, and train nothing."""
        with trainer.prepared():
            return trainer

    def finish(self, trainer: DetectionTrainer) -> Run:
        return Run(trainer, trainer.train())

    def stop_after(self, epochs: int, trainer: DetectionTrainer) -> DetectionTrainer:
        """Train until so many epochs are over and saved, then end as a power cut would; needs ``save=True``."""

        def cut(trainer: Any) -> None:
            if trainer.epoch + 1 == epochs:
                raise Cut

        trainer.add_callback("on_model_save", cut)
        with pytest.raises(Cut):
            trainer.train()
        return trainer

    @staticmethod
    def assert_same(one: Run, other: Run, without: tuple[str, ...] = ()) -> None:
        """Compare bit for bit: weights, average, optimizer, log, choice of the best; clocks excepted.

        Rates and states are compared by parameter, because groups of one's own making stand in an order of their own;
        columns that begin with ``without`` are left out.
        """
        for part, a, b in (
            ("weights", one.weights, other.weights),
            ("average", one.last["model"], other.last["model"]),
            ("best", one.best["model"], other.best["model"]),
        ):
            assert_equal(a, b, part)
        a, b = optimizer_of(one), optimizer_of(other)
        assert a.keys() == b.keys()
        for name in a:
            assert a[name][0] == pytest.approx(b[name][0], rel=1e-12), f"rate and decay of {name}"
            assert_equal(a[name][1], b[name][1], f"optimizer state of {name}")
        assert log_of(one, without) == log_of(other, without)
        assert (one.result.best_epoch, one.result.fitness) == (other.result.best_epoch, other.result.fitness)
        assert plain(one.result.metrics, without) == plain(other.result.metrics, without)

    @staticmethod
    def differ(one: Run, other: Run) -> bool:
        """Whether weights differ: a need that changes nothing proves nothing."""
        return any(not torch.equal(one.weights[key], other.weights[key]) for key in one.weights)


class Cut(Exception):
    pass


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor], part: str) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), f"{part}: {key}"


def optimizer_of(run: Run) -> dict[str, tuple[tuple[float, ...], dict[str, Tensor]]]:
    """Parameter -> its rate, base rate and decay, and its state."""
    optimizer = run.trainer.optimizer
    names = {id(p): name for name, p in unwrap_model(run.trainer.model).named_parameters()}
    return {
        names[id(p)]: ((group["lr"], group["initial_lr"], group["weight_decay"]), optimizer.state.get(p, {}))
        for group in optimizer.param_groups
        for p in group["params"]
    }


def log_of(run: Run, without: tuple[str, ...]) -> list[str]:
    return [plain(row, ("time", "lr/", *without)) for row in run.result.history]


def plain(row: dict[str, float], without: tuple[str, ...]) -> str:
    """A row as text, in which nan equals nan."""
    return repr(sorted((key, value) for key, value in row.items() if not key.startswith(without or "?")))


@pytest.fixture(scope="session")
def tiny(tiny_model: Path, digits_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tiny_model, digits_tiny, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_set(tiny_rtdetr: Path, digits_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Trainings of RT-DETR, with denoising, mosaic and multi-scale as its recipe has them."""
    return Tiny(tiny_rtdetr, digits_tiny, tmp_path_factory.mktemp("tiny_set"), RTDETRTrainer)


@pytest.fixture(scope="session")
def plain_set_run(tiny_set: Tiny) -> Run:
    """The training of RT-DETR that nobody changed."""
    return tiny_set.train()


@pytest.fixture(scope="session")
def plain_run(tiny: Tiny) -> Run:
    """The training that nobody changed."""
    return tiny.train()


# -- a model that finds something --------------------------------------------------------------------------------------
# Networks that have trained for two epochs find nothing, and metrics that are all zero prove little. So: squares of
# 16 px, and a network that says "16 px" everywhere.
SIDE, SIZE = 16, 64


def write_scene(folder: Path, split: str, number: int, rng: np.random.Generator) -> None:
    """Write noise of 64 x 64 px with one bright square, of class 0 or 1, around a cell's centre, and its label."""
    image = rng.integers(0, 120, (SIZE, SIZE, 3), dtype=np.uint8)
    x, y = (8 * int(cell) + 4 for cell in rng.integers(1, 7, 2))
    half = SIDE // 2
    image[y - half : y + half, x - half : x + half, number % 2] = 255
    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(folder / "images" / split / f"{number}.png"), image)
    label = f"{number % 2} {x / SIZE} {y / SIZE} {SIDE / SIZE} {SIDE / SIZE}"
    (folder / "labels" / split / f"{number}.txt").write_text(label)


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YAML of sixteen and eight scenes with one square each."""
    folder, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 8)):
        for number in range(count):
            write_scene(folder, split, number, rng)
    data = {"path": str(folder), "train": "images/train", "val": "images/val", "names": ["blue", "green"]}
    (folder / "squares.yaml").write_text(yaml.safe_dump(data))
    return folder / "squares.yaml"


@pytest.fixture(scope="session")
def finder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network that sees a square of 16 px in every cell of 8."""
    torch.manual_seed(0)
    names = {0: "blue", 1: "green"}
    model = DetectionModel(str(tiny_model), nc=2, names=names, verbose=False)
    with torch.no_grad():
        for boxes, classes in ((model.head.cv2, model.head.cv3), (model.head.one2one_cv2, model.head.one2one_cv3)):
            for level, (box, cls) in enumerate(zip(boxes, classes, strict=True)):
                box[-1].bias.fill_(SIDE / 2 / 8)
                cls[-1].bias.fill_(-1.0 if level == 0 else -6.0)
    path = tmp_path_factory.mktemp("finder") / "finder.pt"
    facts = {"yaml": model.yaml, "nc": 2, "names": names, "train_args": {}}
    save_checkpoint({"eyas": {"format": FORMAT, "version": "0"}, "model": dict(model.state_dict()), **facts}, path)
    return path


@pytest.fixture(scope="session")
def found(finder: Path, squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Trainings in which something is found; give ``fraction=1.0``, the scenes are few."""
    return Tiny(finder, squares, tmp_path_factory.mktemp("found"))


# -- two processes -----------------------------------------------------------------------------------------------------
@dataclass
class Script:
    """What a user's script left behind: a training of two processes, and what others made of it.

    Attributes:
        folder: where it ran.
        report: what the script itself wrote.
        ranks: what each process wrote.
        elsewhere: what an interpreter that has never seen the script found.
        effects: ``effects.json`` of the run.
    """

    folder: Path
    report: dict[str, Any]
    ranks: list[dict[str, Any]]
    elsewhere: dict[str, Any]
    effects: dict[str, Any]


@pytest.fixture(scope="session")
def script(finder: Path, squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Script:
    """The training of ``users_script.py``, with all seven needs in two processes, and its weights opened elsewhere."""
    folder = tmp_path_factory.mktemp("script")
    image = squares.parent / "images" / "val" / "0.png"
    users = Path(__file__).with_name("users_script.py")
    python(folder, str(users), str(folder), str(finder), str(squares), str(image))
    report = json.loads((folder / "report.json").read_text())
    other = tmp_path_factory.mktemp("other")
    with forked_interpreters():
        python(other, "-c", ELSEWHERE, report["best"], str(squares), str(image))
    return Script(
        folder=folder,
        report=report,
        ranks=[json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)],
        elsewhere=json.loads((other / "report.json").read_text()),
        effects=json.loads((Path(report["save_dir"]) / "effects.json").read_text()),
    )


ELSEWHERE = """
import json, sys
from eyas import YOLO
best, data, image = sys.argv[1:]
yolo = YOLO(best)
metrics = yolo.val(data=data, plots=False, verbose=False, workers=0, batch=16, device="cpu")
boxes = yolo.predict(image, conf=0.01, imgsz=64, device="cpu")[0].boxes.data.tolist()
loaded = sorted(name for name in sys.modules if "users_script" in name)
exported = YOLO(yolo.export("torchscript", data=data))  # which fails if the file is not as good
found = exported.predict(image, conf=0.01, max_det=3)[0].boxes.data.tolist()
report = {"class": type(yolo.model).__name__, "metrics": metrics.results_dict, "boxes": boxes, "loaded": loaded}
report |= {"exported": repr(exported), "found": found}
open("report.json", "w").write(json.dumps(report))
"""


def python(folder: Path, *arguments: str) -> None:
    """Run a new interpreter in a folder."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
