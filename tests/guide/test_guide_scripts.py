"""The guide's scripts, unmodified: each runs under Eyas, and what it claims is true."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eyas.api import YOLO
from eyas.checkpoint import load_checkpoint
from eyas.train import RTDETRTrainer

GUIDE = Path(__file__).resolve().parents[3] / "shared" / "guide" / "scripts"
pytestmark = pytest.mark.skipif(not GUIDE.is_dir(), reason="no guide beside the repository")

Run = Callable[[Path], dict[str, Any]]
MAP50 = "metrics/mAP50(B)"


def rows_of(trainer: Any) -> list[dict[str, float]]:
    """The run's results.csv."""
    with (trainer.save_dir / "results.csv").open(newline="", encoding="utf-8") as file:
        return [{key.strip(): float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.mark.usefixtures("forked")
def test_01_an_empty_subclass_trains_from_the_command_line(folder: Path) -> None:
    command = [sys.executable, "-m", "eyas.compat", str(GUIDE / "01_custom_trainer.py")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    weights = folder / "runs" / "detect" / "train" / "weights"
    assert load_checkpoint(weights / "last.pt")["epoch"] == 9
    assert load_checkpoint(weights / "best.pt")["names"] == {0: "red", 1: "green", 2: "blue"}
    assert load_checkpoint(weights / "last.pt")["state"]["trainer"] == "__main__.CustomTrainer"


def test_02_f1_is_in_the_log_of_every_epoch(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(GUIDE / "02_f1_metrics.py")
    text = capsys.readouterr().out
    assert len(re.findall(r"^Mean F1 Score: \d\.\d{4}$", text, re.MULTILINE)) == 5
    assert len(re.findall(r"^Per-class F1: \[.*\]$", text, re.MULTILINE)) == 5


def test_03_the_weights_are_in_the_loss_of_both_branches(run: Run) -> None:
    left = run(GUIDE / "03_class_weights.py")
    trainer = left["model"].trainer
    for model in (trainer.model, trainer.ema.ema):
        assert type(model) is left["WeightedDetectionModel"]
        assert type(model.criterion) is left["WeightedE2ELoss"]
        for branch in (model.criterion.one2many, model.criterion.one2one):
            assert positive_weights(branch).tolist() == pytest.approx([2, 3, 1])
    assert (trainer.model.criterion.one2many.assigner.topk, trainer.model.criterion.one2one.assigner.topk2) == (10, 1)
    assert trainer.model.criterion.o2m == pytest.approx(0.1), "the last epoch's share"
    assert YOLO(trainer.best).names == trainer.data["names"], "opens without the script's classes"


def positive_weights(branch: Any) -> Tensor:
    """What the loss really does: its gradient (C,) where the class is wanted, over that of the plain loss."""
    logits = torch.zeros(1, 1, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(branch.weighted_class_loss(logits, torch.ones(1, 1, 3)).sum(), logits)
    return gradient.flatten() / -0.5


def test_04_the_best_file_is_the_one_of_the_best_map50(run: Run) -> None:
    trainer = run(GUIDE / "04_best_by_map50.py")["model"].trainer
    values = [row[MAP50] for row in trainer.history.rows]
    assert len(values) == 20 and len(set(values)) > 1
    best = load_checkpoint(trainer.best)
    assert best["epoch"] == values.index(max(values)), "ties keep the earlier"
    assert trainer.best_fitness == best["fitness"] == max(values)
    assert trainer.fitness == values[-1]


def test_05_the_backbone_is_frozen_then_moves(run: Run, folder: Path, epochs: list[dict[str, Any]]) -> None:
    trainer = run(GUIDE / "05_freeze_unfreeze.py")["model"].trainer
    start = load_checkpoint(folder / "yolo26n.pt")["model"]
    frozen = [key for key in start if int(key.split(".")[1]) < 10 and "num_batches" not in key]
    free = [key for key in start if key.endswith("conv.weight") and key not in frozen]
    assert len(epochs) == 20 and len(frozen) == 50 and free
    for epoch, seen in enumerate(epochs):
        for which in ("live", "averaged"):
            moved = [key for key in frozen if not torch.equal(seen[which][key], start[key])]
            assert moved == [] if epoch < 5 else moved, (epoch, which)
        assert all(not torch.equal(seen["live"][key], start[key]) for key in free), epoch
    assert all(not torch.equal(epochs[-1]["live"][key], start[key]) for key in frozen), "statistics included"
    assert trainer.freeze_layer_names == [".dfl"]
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())


def test_06_two_rates_keep_their_ratio(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = run(GUIDE / "06_per_layer_lr.py")["model"].trainer
    assert "PerLayerLR optimizer: backbone (30 params" in capsys.readouterr().out
    assert len(trainer.optimizer.param_groups) == 2
    rows = rows_of(trainer)
    assert len(rows) == 20
    assert [row["lr/pg0"] / row["lr/pg1"] for row in rows] == pytest.approx([0.1] * 20, rel=1e-4)
    assert rows[0]["lr/pg1"] > 3 * rows[-1]["lr/pg1"] > 0, "and follow the schedule"


# -- the three for RT-DETR ---------------------------------------------------------------------------------------------
def test_07_six_groups_and_their_ratio(run: Run) -> None:
    trainer = run(GUIDE / "07_rtdetr_backbone_lr.py")["model"].trainer
    assert isinstance(trainer, RTDETRTrainer) and type(trainer).__module__ == "__main__"
    groups = trainer.optimizer.param_groups
    assert [group["param_group"] for group in groups] == ["weight", "bn", "bias"] * 2
    assert [group["weight_decay"] > 0 for group in groups] == [True, False, False] * 2
    depth = len(trainer.model.yaml["backbone"])
    behind = {f"model.{i}." for i in range(depth)}
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    for number, group in enumerate(groups):
        inside = {names[id(p)].startswith(tuple(behind)) for p in group["params"]}
        assert inside == {number >= 3}, "the backbone is in the last three groups"
    rows = rows_of(trainer)
    assert len(rows) == 20
    for row in rows:
        for i in range(3):
            assert row[f"lr/pg{i + 3}"] / row[f"lr/pg{i}"] == pytest.approx(0.1, rel=1e-3)
    assert trainer.args.warmup_bias_lr == 0
    assert groups[0]["initial_lr"] == 1e-4


@pytest.mark.usefixtures("forked")
def test_08_normalisation_is_synchronised_in_two_processes(run: Run, folder: Path, capfd: Any) -> None:
    (script,) = GUIDE.glob("08_*.py")
    text = script.read_text(encoding="utf-8")
    assert "epochs=20, device=[0, 1]" in text
    text = text.replace("epochs=20, device=[0, 1]", 'epochs=1, device="cpu", processes=2, imgsz=128')
    told = "lambda t: print('SYNCHRONISED', sum(isinstance(m, nn.SyncBatchNorm) for m in t.model.modules()))"
    text = text.replace("model.train(", f'model.add_callback("on_train_end", {told})\nmodel.train(')
    copy = folder / script.name
    copy.write_text(text, encoding="utf-8")
    run(copy)
    said = re.findall(r"SYNCHRONISED (\d+)", capfd.readouterr().out)
    assert said and int(said[0]) > 10


def test_09_the_norm_is_clipped(run: Run, folder: Path, clipped: list[tuple[float, float]]) -> None:
    (script,) = GUIDE.glob("09_*.py")
    trainer = run(script)["model"].trainer
    assert len(clipped) == trainer.plan.updates == 20
    assert all(after <= 0.1001 for _, after in clipped) and any(before > 0.1 for before, _ in clipped)


# -- "the same trainer works for YOLO, with another parent class", says the guide of its three RT-DETR scripts ---------
def for_yolo(number: str, folder: Path) -> Path:
    """Write the script as the guide says to change it, and two epochs long."""
    (script,) = GUIDE.glob(f"{number}_*.py")
    text = script.read_text(encoding="utf-8")
    for old, new in (
        (
            "from ultralytics.models.rtdetr.train import RTDETRTrainer",
            "from ultralytics.models.yolo.detect import Base",
        ),
        ("from ultralytics import RTDETR", "from ultralytics import YOLO"),
        ("(RTDETRTrainer)", "(DetectionTrainer)"),
        ('RTDETR("rtdetr-l.pt")', 'YOLO("yolo26n.pt")'),
        ("import Base", "import DetectionTrainer"),
        ("epochs=20", "epochs=2, plots=False"),
        ("device=[0, 1]", 'device="cpu"'),
    ):
        text = text.replace(old, new)
    assert "RTDETR" not in re.sub(r"RTDETRBackboneLRTrainer|\"\"\".*?\"\"\"|#.*", "", text)
    copy = folder / script.name
    copy.write_text(text, encoding="utf-8")
    return copy


def test_07_for_yolo_six_groups_and_their_ratio(run: Run, folder: Path) -> None:
    trainer = run(for_yolo("07", folder))["model"].trainer
    assert trainer.args.warmup_bias_lr == 0
    groups = trainer.optimizer.param_groups
    assert [group["param_group"] for group in groups] == ["weight", "bn", "bias"] * 2
    for row in rows_of(trainer):
        for i in range(3):
            assert row[f"lr/pg{i + 3}"] / row[f"lr/pg{i}"] == pytest.approx(0.1, rel=1e-4)


def test_08_for_yolo_one_process_stays_as_it_is(run: Run, folder: Path) -> None:
    trainer = run(for_yolo("08", folder))["model"].trainer
    assert trainer.world_size <= 1
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in trainer.model.modules())


@pytest.fixture
def clipped(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Norm of all gradients before and after every call of torch's clipping."""
    clip, norms = torch.nn.utils.clip_grad_norm_, list[tuple[float, float]]()

    def spy(parameters: Any, max_norm: float, **rest: Any) -> Tensor:
        parameters = list(parameters)
        before = clip(parameters, max_norm=max_norm, **rest)
        after = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
        norms.append((float(before), float(after)))
        return before

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    return norms


def test_09_for_yolo_the_norm_is_clipped(run: Run, folder: Path, clipped: list[tuple[float, float]]) -> None:
    trainer = run(for_yolo("09", folder))["model"].trainer
    assert len(clipped) == trainer.plan.updates == 2
    assert all(before > 0.1 and after <= 0.1001 for before, after in clipped)


# -- the rest of the guide ---------------------------------------------------------------------------------------------
def test_gains_given_to_train_reach_the_loss(run: Run, folder: Path) -> None:
    script = folder / "gains.py"
    script.write_text(
        "from ultralytics import YOLO\n"
        'model = YOLO("yolo26n.pt")\n'
        'model.train(data="coco8.yaml", epochs=1, plots=False, box=10.0, cls=1.5, dfl=2.0)\n'
    )
    criterion = run(script)["model"].trainer.model.criterion
    assert criterion.one2one.gains == criterion.one2many.gains == {"box": 10.0, "cls": 1.5, "l1": 2.0}


def test_callbacks_of_the_faq_fire_and_signatures_of_the_incumbent_fit(run: Run, folder: Path) -> None:
    script = folder / "hooks.py"
    script.write_text(
        "from ultralytics import YOLO\n"
        "from ultralytics.models.yolo.detect import DetectionTrainer\n"
        "from ultralytics.utils import DEFAULT_CFG\n"
        "class Plain(DetectionTrainer):\n"
        "    def __init__(self, cfg=DEFAULT_CFG, overrides=None, _callbacks=None):\n"
        "        super().__init__(cfg, overrides, _callbacks)\n"
        'events = ["on_train_start", "on_train_epoch_start", "on_train_epoch_end", "on_fit_epoch_end",\n'
        '          "on_model_save"]\n'
        "seen = []\n"
        'model = YOLO("yolo26n.pt")\n'
        "for event in events:\n"
        "    model.add_callback(event, lambda trainer, event=event: seen.append(event))\n"
        'model.train(data="coco8.yaml", epochs=2, plots=False, trainer=Plain)\n'
        'options = {"model": "yolo26n.pt", "data": "coco8.yaml", "epochs": 1, "plots": False}\n'
        "alone = DetectionTrainer(overrides=options)\n"
        "alone.train()\n"
    )
    left = run(script)
    assert left["seen"] == [
        "on_train_start",
        *(["on_train_epoch_start", "on_train_epoch_end", "on_model_save", "on_fit_epoch_end"] * 2),
    ]
    assert left["alone"].best.is_file()
