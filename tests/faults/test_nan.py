"""Numbers that are none: the step is named with its images, layer and term, kept, replayed, and answered as asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eyas.callbacks import Callback
from eyas.checkpoint import load_checkpoint
from eyas.cli import main
from eyas.optim import GradientNorms
from eyas.run.tracking import TrainingDiverged
from eyas.train import DetectionTrainer
from eyas.train.nonfinite import Origin, origin
from eyas.train.recorder import MOST_SKIPPED, RING, Recorder, Step
from eyas.train.replay import replay

NAN = float("nan")


@pytest.fixture
def given(digits_tiny: Path, tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    files = {"model": str(tiny_model), "data": str(digits_tiny), "save_dir": str(tmp_path / "run")}
    small = {"imgsz": 32, "batch": 8, "epochs": 3, "fraction": 0.5, "val": False, "workers": 0, "device": "cpu"}
    return files | small | {"plots": False, "report": False, "verbose": False}


class Spoils(Callback):
    """Spoils batches of the second epoch before the network sees them; remembers the images of all.

    Args:
        steps: of that epoch, 0-based.
        entry: of the batch.
        once: not in a second go.
    """

    def __init__(self, *steps: int, entry: str = "bboxes", once: bool = False) -> None:
        self.steps, self.entry, self.once = steps, entry, once
        self.files: list[tuple[int, int, list[str]]] = []

    def adjust_batch(self, trainer: Any, batch: Any) -> Any:
        before = [(epoch, step) for epoch, step, _ in self.files]
        self.files.append((trainer.epoch, trainer.step, batch["im_file"]))
        again = self.once and (trainer.epoch, trainer.step) in before
        if trainer.epoch == 1 and trainer.step in self.steps and not again:
            batch[self.entry] = batch[self.entry].clone()
            batch[self.entry][0] = NAN
        return batch


def run(given: dict[str, Any], *callbacks: Callback, **more: Any) -> DetectionTrainer:
    trainer = DetectionTrainer(overrides=given | more, _callbacks=list(callbacks))
    trainer.train()
    return trainer


@pytest.mark.parametrize("entry", ["bboxes", "img", "cls"])
def test_the_step_is_named_and_kept_and_replayed(
    given: dict[str, Any], entry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoils = Spoils(2, entry=entry)
    with pytest.raises(TrainingDiverged) as caught:
        run(given, spoils)
    said = str(caught.value)
    files = [Path(file).name for file in spoils.files[-1][2]]
    folder = tmp_path / "run" / "nan_step_7"  # of four in an epoch
    assert "became nan or infinite in epoch 2, step 3 with the images " + ", ".join(files) in said
    assert "last.pt holds epoch 1" in said and f"eyas replay {folder}" in said and "lr0" in said
    assert (f"{entry} of the batch" in said) == (entry != "img") and f"in the batch: {entry}" in said
    report = json.loads((folder / "report.json").read_text())
    assert [Path(file).name for file in report["images"]] == files
    assert len(report["steps"]) == 7 and report["steps"][0]["loss"] > 0 and report["steps"][5]["gradient_norms"]
    augmented = report["augmentation"]
    assert [row["files"][0] for row in augmented] == report["images"] and len(augmented[0]["hsv"]) == 3
    weights = load_checkpoint(folder / "before.pt")["state"]["model"]
    assert all(bool(v.isfinite().all()) for v in weights.values() if v.is_floating_point())
    assert main(["replay", str(folder)]) == 0
    told = capsys.readouterr().out
    assert f"replayed: in the batch: {entry}" in told and "layer" not in told, "no layer made it"


def test_a_layer_that_gives_no_number_is_named_in_a_fresh_process(given: dict[str, Any], tmp_path: Path) -> None:
    class Overflows(Callback):
        def on_train_batch_start(self, trainer: Any) -> None:
            if trainer.epoch == 1 and trainer.step == 1:
                with torch.no_grad():
                    trainer.model.get_parameter("model.2.cv1.conv.weight").fill_(1e38)

    with pytest.raises(TrainingDiverged, match=r"first in the output of the layer (model\.2\.cv1\.\w+)") as caught:
        run(given, Overflows())
    layer = re.search(r"output of the layer (\S+)", str(caught.value))
    assert layer is not None
    command = [sys.executable, "-m", "eyas", "replay", str(tmp_path / "run" / "nan_step_6")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**os.environ})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"first in the output of the layer {layer[1]}" in done.stdout


def test_what_is_made_around_the_network_is_not_blamed_on_it(given: dict[str, Any], tmp_path: Path) -> None:
    class Poison(Callback):
        def adjust_loss(self, trainer: Any, loss: Any) -> Any:
            return loss * NAN if trainer.epoch == 1 else loss

    with pytest.raises(TrainingDiverged, match="the loss became nan .*neither in the network nor in its loss"):
        run(given, Poison())
    assert not replay(tmp_path / "run" / "nan_step_5")
    assert main(["replay", str(tmp_path / "run" / "nan_step_5")]) == 1


def test_a_step_is_left_out(given: dict[str, Any], tmp_path: Path) -> None:
    trainer = run(given, Spoils(0, 2, entry="img"), on_nan="skip")
    stored = load_checkpoint(trainer.last)
    for tensors in (stored["model"], stored["state"]["model"]):
        assert all(bool(v.isfinite().all()) for v in tensors.values() if v.is_floating_point()), "statistics too"
    assert [note.partition(" with ")[0].rpartition("in ")[2] for note in trainer.notes] == [
        "epoch 2, step 1",
        "epoch 2, step 3",
    ]
    assert stored["state"]["notes"] == trainer.notes and all(note.endswith(": left out") for note in trainer.notes)
    assert all(np.isfinite(value) for row in trainer.history.rows for value in row.values())
    assert [path.name for path in (tmp_path / "run").glob("nan_step_*")] == ["nan_step_5"], "the first is kept"


def test_a_step_that_is_left_out_leaves_no_trace(given: dict[str, Any], tmp_path: Path) -> None:
    """Held against a run whose optimizer is kept from that step by hand."""

    class Never(DetectionTrainer):
        def train_batch(self, batch: Any) -> None:
            if not (self.epoch == 1 and self.step == 1):
                super().train_batch(batch)

    plain = {"optimizer": "SGD", "ema": False}
    left_out = run(given, Spoils(1, entry="img"), on_nan="skip", save_dir=str(tmp_path / "a"), **plain)
    never = Never(overrides=given | plain | {"save_dir": str(tmp_path / "b")})
    never.train()
    for name, value in left_out.model.state_dict().items():
        assert torch.equal(value, never.model.state_dict()[name]) or name.endswith("num_batches_tracked"), name


def test_patience_has_an_end(given: dict[str, Any]) -> None:
    class Always(Spoils):
        def adjust_batch(self, trainer: Any, batch: Any) -> Any:
            return batch | {"bboxes": batch["bboxes"] * NAN} if trainer.epoch else batch

    with pytest.raises(TrainingDiverged, match="epoch 3, step 2 "):  # the sixth
        run(given, Always(), on_nan="skip")
    assert MOST_SKIPPED == 5


def test_the_run_goes_back_and_on_in_another_order(given: dict[str, Any], tmp_path: Path) -> None:
    spoils = Spoils(1, once=True)
    trainer = run(given, spoils, on_nan="rollback")
    visits = {(epoch, step): [] for epoch, step, _ in spoils.files}
    for epoch, step, files in spoils.files:
        visits[epoch, step].append(files)
    assert [len(files) for files in visits.values()] == [1] * 4 + [2, 2] + [1] * 6
    first, second = visits[1, 0]
    assert first != second, "the second time in another order"
    assert trainer.rollbacks == 1 and load_checkpoint(trainer.last)["state"]["rollbacks"] == 1
    assert [row["epoch"] for row in trainer.history.rows] == [1, 2, 3]
    assert "goes back to epoch 1" in trainer.notes[0]


def test_without_a_checkpoint_there_is_no_way_back(given: dict[str, Any]) -> None:
    class Early(Spoils):
        def adjust_batch(self, trainer: Any, batch: Any) -> Any:
            batch["bboxes"] = batch["bboxes"] * NAN
            return batch

    with pytest.raises(TrainingDiverged, match="epoch 1, step 1 .*no checkpoint was written yet"):
        run(given, Early(), on_nan="rollback")


def test_folders_without_a_step_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path)]) == 1
    assert "holds no recorded step" in capsys.readouterr().err
    (tmp_path / "report.json").write_text("[]")
    assert main(["replay", str(tmp_path)]) == 1
    assert main(["replay"]) == 2 and main(["replay", "model=x"]) == 2


# -- parts -------------------------------------------------------------------------------------------------------------
def test_the_ring_holds_the_last_steps() -> None:
    recorder = Recorder(at_once=True)
    for i in range(RING + 7):
        assert recorder.add(Step(0, i, [f"{i}.png"], torch.tensor(1.0), {"box": torch.tensor(float(i))}))
    assert [step.step for step in recorder.steps] == list(range(7, RING + 7))
    assert not recorder.add(Step(0, 99, [], torch.tensor(1.0), {"box": torch.tensor(NAN)}))
    assert recorder.steps[-1].told()["losses"] == {"box": "nan"}


def test_norms_are_those_of_the_gradients() -> None:
    weights = [
        torch.nn.Parameter(torch.randn(3, 4)),
        torch.nn.Parameter(torch.randn(5)),
        torch.nn.Parameter(torch.ones(2)),
    ]
    for i, weight in enumerate(weights[:2]):
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(i))
    optimizer = torch.optim.SGD([{"params": weights[:2], "param_group": "weight"}, {"params": weights[2:]}], lr=1.0)
    recorder = Recorder(at_once=True)
    recorder.add(Step(0, 0, [], torch.tensor(1.0), {}))
    assert recorder.add_gradients(optimizer, GradientNorms(), scaled=False) is None
    together = np.concatenate([weight.grad.numpy().ravel() for weight in weights[:2]])  # type: ignore[union-attr]
    assert set(recorder.steps[0].norms) == {"0 weight"}
    assert float(recorder.steps[0].norms["0 weight"]) == pytest.approx(np.linalg.norm(together), rel=1e-6)
    weights[1].grad[2] = float("inf")  # type: ignore[index]
    assert recorder.add_gradients(optimizer, GradientNorms(), scaled=True) is None, "the scaler's to answer"
    assert recorder.add_gradients(optimizer, GradientNorms(), scaled=False) is recorder.steps[0]


def test_gradients_alone_are_told_the_last_layer_first() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    x = torch.zeros(1, 2)

    def losses() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = network(x).sub(network[1].bias).abs().sqrt().sum()  # the root of 0, whose slope is infinite
        network[1].weight.data.zero_()
        return loss, {"root": loss.detach()}

    network[1].weight.data.zero_()
    found = origin(network, {"img": x}, losses)
    assert not found.terms and not found.layer and found.gradients
    assert "in the gradients of" in str(found)
    assert not Origin() and "neither in the network" in str(Origin())
