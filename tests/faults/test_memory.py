"""Memory that is too small for a step: the step is taken in parts, which add up to it, and so are those that follow."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import small_yolo
from eyas.api import YOLO
from eyas.boxes import xyxy_to_cxcywh
from eyas.callbacks import Callback
from eyas.checkpoint import load_checkpoint
from eyas.losses import SetCriterion
from eyas.models import build_detector
from eyas.nn.unwrap import unwrap_model
from eyas.run.plan import Plan
from eyas.train import DetectionTrainer
from eyas.train.batch_size import fits, fullest, largest
from eyas.train.compiling import made_up
from eyas.train.memory import OutOfMemory, is_out_of_memory, pass_in_parts, shares_of
from eyas.train.parts import in_parts
from eyas.types import SetPrediction

SHORT = "CUDA out of memory. Tried to allocate 2.00 GiB"


@pytest.fixture
def given(digits_tiny: Path, tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    files = {"model": str(tiny_model), "data": str(digits_tiny), "save_dir": str(tmp_path / "run")}
    small = {"imgsz": 32, "batch": 8, "epochs": 2, "fraction": 0.5, "val": False, "workers": 0, "device": "cpu"}
    return files | small | {"plots": False, "report": False, "verbose": False}


class Short(torch.autograd.Function):
    """Nothing, until the gradient comes."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:  # type: ignore[override]
        return images.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        raise torch.OutOfMemoryError(SHORT)


class Little(Callback):
    """A device with room for so many images, from some step of the second epoch on.

    Args:
        images: that fit.
        step: 0-based.
        backward: it is the backward pass that is too much, after gradients of later layers were made.
    """

    def __init__(self, images: int, step: int = 0, backward: bool = False) -> None:
        self.images, self.step, self.backward = images, step, backward
        self.seen: list[int] = []

    def on_train_start(self, trainer: Any) -> None:
        network = unwrap_model(trainer.model)

        def look(module: nn.Module, given: Any) -> Any:
            if module.training and (trainer.epoch, trainer.step) >= (1, self.step):
                self.seen.append(len(given[0]))
                if len(given[0]) > self.images and not self.backward:
                    raise torch.OutOfMemoryError(SHORT)
                if len(given[0]) > self.images:
                    given[0].requires_grad_()
                    return (Short.apply(given[0]),)
            return None

        network.model[0].register_forward_pre_hook(look)


def run(given: dict[str, Any], *callbacks: Callback, **more: Any) -> DetectionTrainer:
    trainer = DetectionTrainer(overrides=given | more, _callbacks=list(callbacks))
    trainer.train()
    return trainer


def weights_of(trainer: DetectionTrainer) -> dict[str, Tensor]:
    return dict(load_checkpoint(trainer.last)["state"]["model"])


def test_batches_go_on_in_parts_that_fit_and_so_does_a_resumed_run(
    given: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    little = Little(images=3)
    trainer = run(given, little)
    assert trainer.plan.passes == 4 and max(little.seen[2:]) == 2, "halved twice"
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["passes"] == 4
    stored = load_checkpoint(trainer.last)["state"]
    assert stored["step"] == 0 and Plan.from_dict(stored["plan"]).passes == 4
    assert [note for note in stored["notes"] if "step 1 of epoch 2 does not fit" in note and "4 parts" in note]
    assert "does not fit the memory of cpu (CUDA out of memory" in caplog.text
    again = run({"resume": str(trainer.last), "epochs": 3})
    assert again.plan.passes == 4 and len(again.history.rows) == 3


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_the_whole_step_of_the_optimizer_is_taken_again(given: dict[str, Any], tmp_path: Path, backward: bool) -> None:
    """The second of four batches is too much: its step ends as if all four had been passed in parts."""
    accumulates = {"nbs": 32, "batch": 8, "epochs": 2, "fraction": 1.0}

    class InParts(Callback):
        def on_train_epoch_start(self, trainer: Any) -> None:
            if trainer.epoch == 1:
                trainer.plan = replace(trainer.plan, passes=2)

    found = run(given, Little(4, step=1, backward=backward), **accumulates)
    assert found.accumulate == 4 and found.plan.passes == 2
    planned = run(given, InParts(), **accumulates, save_dir=str(tmp_path / "planned"))
    one, other = weights_of(found), weights_of(planned)
    assert all(torch.equal(one[name], other[name]) for name in one if not name.endswith("num_batches_tracked"))


def test_what_does_not_fit_image_by_image_is_said(given: dict[str, Any]) -> None:
    with pytest.raises(OutOfMemory, match=r"step 1 of epoch 2 does not fit.*one image at a time: give a smaller imgsz"):
        run(given, Little(images=0))


def test_memory_that_is_short_elsewhere_is_said_in_a_line(given: dict[str, Any]) -> None:
    class Greedy(Callback):
        def on_train_start(self, trainer: Any) -> None:
            torch.empty(2**50)

    with pytest.raises(OutOfMemory, match=r"memory is too small \(.*GiB of memory are free now\. Give a smaller batch"):
        run(given, Greedy())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_parts_have_all_images_objects_and_areas_once() -> None:
    batch = {
        "img": torch.arange(5.0).view(5, 1, 1, 1),
        "cls": torch.arange(6.0)[:, None],
        "bboxes": torch.rand(6, 4),
        "batch_idx": torch.tensor([0.0, 0, 2, 2, 2, 4]),
        "ignored": torch.rand(3, 4),
        "ignored_idx": torch.tensor([1, 2, 4]),
        "ignored_kind": torch.tensor([0, 1, 2]),
        "ignored_classes": torch.ones(5, 10, dtype=torch.bool),  # as many rows as images, by chance
        "im_file": list("abcde"),
        "max_objects": 3,
    }
    parts = list(in_parts(batch, 2))
    assert [part["im_file"] for part in parts] == [["a", "b"], ["c", "d", "e"]]
    assert [part["batch_idx"].tolist() for part in parts] == [[0, 0], [0, 0, 0, 2]]
    assert [part["ignored_idx"].tolist() for part in parts] == [[1], [0, 2]]
    for name in ("img", "cls", "bboxes", "ignored", "ignored_kind"):
        assert torch.equal(torch.cat([part[name] for part in parts]), batch[name])
    assert all(len(part["ignored_classes"]) == 5 and part["max_objects"] == 3 for part in parts)
    assert len(list(in_parts(batch, 8))) == 5


def predictions(images: int) -> SetPrediction:
    draw = torch.Generator().manual_seed(0)
    boxes = torch.rand(3, images, 20, 4, generator=draw) * 0.2 + 0.3
    scores = torch.randn(3, images, 20, 5, generator=draw)
    return SetPrediction(boxes[:2], scores[:2], boxes[2], scores[2], None)


class SetRun:
    """Passes what a network would give for a batch, in three parts of two images."""

    def __init__(self, criterion: SetCriterion, pred: SetPrediction, batch: dict[str, Any]) -> None:
        self.plan, self.device, self.model = SimpleNamespace(passes=3), torch.device("cpu"), nn.Module()
        self.model.criterion, self.criterion = criterion, criterion
        self.pred, self.batch = pred, batch
        self.differentiated = self.loss = torch.zeros(())
        self.loss_items: dict[str, Tensor] = {}
        self.last: list[bool] = []

    def forward_backward(self, share: float, last: bool) -> None:
        mine = slice(2 * len(self.last), 2 * len(self.last) + 2)
        pred = SetPrediction(
            self.pred.dec_bboxes[:, mine], self.pred.dec_scores[:, mine], self.pred.enc_bboxes[mine],
            self.pred.enc_scores[mine], None,
        )  # fmt: skip
        loss, self.loss_items = self.criterion(pred, self.batch)
        self.loss = loss.sum()
        self.differentiated = self.differentiated + self.loss * share
        self.last.append(last)


def test_parts_of_a_set_loss_add_up_to_that_of_the_batch() -> None:
    """Its divisor is the number of objects: 1, 3 and none in the parts."""
    draw = torch.Generator().manual_seed(1)
    corners = torch.rand(4, 2, 2, generator=draw).sort(1).values.flatten(1)
    batch = {
        "img": torch.zeros(6, 3, 8, 8),
        "cls": torch.tensor([[0.0], [1], [2], [3]]),
        "bboxes": xyxy_to_cxcywh(corners),
        "batch_idx": torch.tensor([1.0, 2, 2, 3]),
    }
    run = SetRun(SetCriterion(nc=5), predictions(6), batch)
    loss, items = run.criterion(run.pred, batch)
    pass_in_parts(run, batch)  # type: ignore[arg-type]  # it needs no more of a run
    torch.testing.assert_close(run.differentiated, loss.sum())
    torch.testing.assert_close(run.loss, loss.sum())
    torch.testing.assert_close(run.loss_items, items)
    assert run.last == [False, False, True]


def test_a_dense_loss_of_parts_alike_adds_up_to_that_of_the_batch() -> None:
    """It grows with the images: twice the same two images are twice their loss."""
    network = build_detector(small_yolo.table(), nc=3, verbose=False)
    network.criterion = network.init_criterion()
    network.eval()  # no statistics of a batch
    half = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    objects = {"cls": torch.tensor([[0.0], [2]]), "bboxes": torch.tensor([[0.4, 0.5, 0.3, 0.4], [0.6, 0.5, 0.5, 0.5]])}
    part = {"img": half, **objects, "batch_idx": torch.tensor([0.0, 1])}
    batch = {"img": half.repeat(2, 1, 1, 1), **{k: v.repeat(2, 1) for k, v in objects.items()}}
    batch["batch_idx"] = torch.tensor([0.0, 1, 2, 3])
    shares, is_mean = shares_of(list(in_parts(batch, 2)), network)
    assert shares == [0.5, 0.5] and not is_mean
    torch.testing.assert_close(network(batch)[0], 2 * network(part)[0])


CRAMPED = """
import json, sys
from dataclasses import replace
import torch
from eyas import dist
from eyas.callbacks import Callback
from eyas.nn.unwrap import unwrap_model
from eyas.train import DetectionTrainer

class Cramped(Callback):  # the second of two processes has room for two images, from some epoch on
    on = "all"

    def on_train_start(self, trainer):
        def look(module, given):
            if dist.rank() == 1 and module.training and trainer.epoch >= EPOCH and len(given[0]) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
        unwrap_model(trainer.model).model[0].register_forward_pre_hook(look)

class InTwoParts(Callback):
    on = "all"

    def on_train_epoch_start(self, trainer):
        if trainer.epoch == EPOCH:
            trainer.plan = replace(trainer.plan, passes=2)

options, EPOCH, kind = json.loads(sys.argv[1])
trainer = DetectionTrainer(overrides=options, _callbacks=[globals()[kind]()])
trainer.train()
"""


def run_cramped(given: dict[str, Any], folder: Path, epoch: int, kind: str = "Cramped", **more: Any) -> str:
    """Train in two processes, and return what is said."""
    options = given | {"processes": 2, "fraction": 1.0, "save_dir": str(folder), **more}
    script = [sys.executable, "-c", CRAMPED, json.dumps([options, epoch, kind])]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("restarts", [0, 1])
def test_processes_start_again_with_their_batches_in_parts(
    given: dict[str, Any], tmp_path: Path, restarts: int, forked: None
) -> None:
    found, planned = tmp_path / "found", tmp_path / "planned"
    said = run_cramped(given, found, 1, restarts=restarts)
    again = "last.pt, which holds epoch 1, and pass batches in 2 parts"
    assert (again in said) is (restarts == 0), "where the launcher may start them again it does"
    plan = json.loads((found / "plan.json").read_text())
    assert plan["passes"] == 2 and any(choice["name"] == "passes" for choice in plan["decisions"])
    if restarts:
        return
    run_cramped(given, planned, 1, kind="InTwoParts")
    one, other = (load_checkpoint(folder / "weights" / "last.pt")["state"]["model"] for folder in (found, planned))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_whose_first_step_does_not_fit_begins_again(given: dict[str, Any], tmp_path: Path, forked: None) -> None:
    said = run_cramped(given, tmp_path / "run", 0, epochs=1)
    assert "does not fit the memory of cpu (CUDA out of memory): all processes start again from the beginning" in said
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["passes"] == 2


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from eyas.callbacks import Callback
from eyas.train import DetectionTrainer

class Limit(Callback):
    def on_train_start(self, trainer):
        torch.set_num_threads(1)
        torch.backends.mkldnn.enabled = False  # it says only that it "could not create a primitive"
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + {room}, resource.RLIM_INFINITY))

    def on_train_epoch_end(self, trainer):  # a validation takes larger batches
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

DetectionTrainer(overrides={given!r}, _callbacks=[Limit()]).train()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system limits addresses otherwise")
def test_an_address_space_that_is_too_small_is_lived_with(given: dict[str, Any], tmp_path: Path) -> None:
    options = given | {"imgsz": 320, "batch": 16, "epochs": 1, "fraction": 0.25}
    script = LIMITED.format(given=options, room=300 * 2**20)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    passes = json.loads((tmp_path / "run" / "plan.json").read_text())["passes"]
    assert passes > 1 and "allocate memory" in done.stderr


# -- batch=auto --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("room", [1, 2, 3, 7, 8, 13, 31, 40, 63, 64, 1000])
@pytest.mark.parametrize("most", [1, 5, 64])
def test_the_largest_batch_is_found_to_an_eighth_and_none_above_the_most_is_tried(room: int, most: int) -> None:
    tried: list[int] = []

    def fits(images: int) -> bool:
        tried.append(images)
        return images <= room

    found, best = largest(fits, most), min(room, most)
    assert best - best // 8 - 1 < found <= best and max(tried) <= most and len(tried) <= 12
    with pytest.raises(OutOfMemory, match="one image does not fit"):
        largest(lambda images: False, most)


def test_a_try_leaves_nothing_behind(given: dict[str, Any]) -> None:
    trainer = DetectionTrainer(overrides=given)
    with trainer.prepared():
        network: Any = unwrap_model(trainer.model)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        criterion, drawn = network.criterion, torch.get_rng_state()
        batch = made_up(network, 3, 32, 7)
        assert batch["img"].shape == (3, 3, 32, 32) and batch["max_objects"] == 3 and len(batch["cls"]) == 7
        drawn = torch.get_rng_state()
        assert fits(trainer, 3, 7)
        hook = network.model[0].register_forward_pre_hook(lambda *given: torch.empty(2**50))
        assert not fits(trainer, 3, 7)
        hook.remove()
        assert network.criterion is criterion and all(p.grad is None for p in network.parameters())
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert torch.equal(torch.get_rng_state(), drawn)
        objects = fullest(trainer.train_loader.dataset, each=4)
        counts = trainer.train_loader.dataset.index.objects()
        assert objects(1) == sum(sorted(counts)[-4:]) and objects(10**6) == counts.sum()


def test_what_is_not_measured_is_refused(given: dict[str, Any], tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="batch=auto measures the memory of one GPU, and this run is on cpu"):
        run(given | {"batch": "auto"})
    with pytest.raises(ValueError, match="batch=auto is for a training"):
        YOLO(tiny_model).val(data=given["data"], batch="auto", imgsz=32, device="cpu")
