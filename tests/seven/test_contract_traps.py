"""The fourteen contract traps: what overrides may rely on, each with the way in which a naive trainer breaks it.

Most are read from one training in which a user's trainer overrides nearly everything.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eyas import DetectionTrainer
from eyas.callbacks import Callback
from eyas.callbacks.freeze import Phase, frozen_at
from eyas.compat.losses import E2ELoss, v8DetectionLoss
from eyas.launch import handover
from eyas.losses import EndToEndCriterion
from eyas.models import DetectionModel
from eyas.models.catalog import model_table
from eyas.optim import check_groups, unwrap_model
from eyas.train.parallel import DataParallel

SCORES = (-5.0, -2.0)
BIAS_LR = 0.25


class OwnLoss(EndToEndCriterion):
    """Counts the calls of the element-wise loss, and what shapes it sees."""

    def __init__(self, stock: EndToEndCriterion) -> None:
        super().__init__(stock.one2many, stock.one2one)
        self.shapes: list[tuple[int, ...]] = []
        for branch in (self.one2many, self.one2one):
            inner: Any = branch
            inner.bce = self.element_loss

    def element_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(logits.shape))
        return nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


class OwnModel(DetectionModel):
    def init_criterion(self) -> Any:
        self.told = {"nc": self.nc, "names": dict(self.names), "args": self.args}
        return OwnLoss(super().init_criterion())


class Everything(DetectionTrainer):
    """Overrides what a user may override, and writes down what it meets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: dict[str, Any] = defaultdict(list)

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        return OwnModel(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)

    def set_model_attributes(self) -> None:
        super().set_model_attributes()
        self.seen["replaced"] = self.model
        self.seen["device"] = next(self.model.parameters()).device
        self.model = copy.deepcopy(self.model)
        self.model.args = self.args
        self.model.is_the_replacement = True

    def build_optimizer(
        self,
        model: nn.Module,
        name: str = "auto",
        lr: float = 0.001,
        momentum: float = 0.9,
        decay: float = 1e-5,
        iterations: float = 1e5,
    ) -> Any:
        """Biases first, in a group that says so; where others expect weights, a group without a label."""
        self.args.warmup_bias_lr = BIAS_LR
        self.seen["given"] = (name, lr)
        named = list(unwrap_model(model).named_parameters())
        backbone = [p for key, p in named if int(key.split(".")[1]) < 11 and not key.endswith("bias")]
        rest = [p for key, p in named if int(key.split(".")[1]) >= 11 and not key.endswith("bias")]
        groups = [
            {"params": [p for key, p in named if key.endswith("bias")], "lr": lr, "param_group": "bias"},
            {"params": backbone, "lr": lr * 0.1},
            {"params": rest, "lr": lr},
        ]
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), weight_decay=decay)

    def optimizer_step(self) -> None:
        """Clears no gradient, so that nobody but the loop could."""
        self.seen["scaler"].append((type(self.scaler), self.scaler.is_enabled()))
        self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.seen["left"].append(self.gradient())
        if self.ema:
            self.ema.update(self.model)

    def gradient(self) -> torch.Tensor:
        found = next(unwrap_model(self.model).parameters()).grad
        return torch.zeros(()) if found is None else found.clone()

    def set_rates(self) -> None:
        if self.seen["left"]:
            self.seen["met"].append(self.gradient())
        super().set_rates()
        self.seen["rates"].append([group["lr"] for group in self.optimizer.param_groups])

    def validate(self) -> Any:
        before = self.best_fitness
        metrics, stock = super().validate()
        self.seen["written by the stock method"].append(self.best_fitness != before)
        self.seen["stock"].append(stock)
        fitness = SCORES[self.epoch]
        if self.best_fitness is None or fitness > self.best_fitness:
            self.best_fitness = fitness
        return metrics, fitness


@pytest.fixture(scope="module")
def everything(tiny: Any) -> Any:
    """The training of ``Everything``; two steps of warm-up in four."""
    return tiny.train(Everything, warmup_epochs=1.0)


def test_trap_01_set_model_attributes_may_replace_the_model(everything: Any) -> None:
    """Naive: a trainer that goes on with its own reference trains, averages and saves the model that was replaced."""
    trainer = everything.trainer
    model = unwrap_model(trainer.model)
    assert model.is_the_replacement and trainer.ema.ema.is_the_replacement
    assert trainer.seen["device"] == trainer.device and not isinstance(trainer.seen["replaced"], DataParallel)
    mine, optimised = {id(p) for p in model.parameters()}, trainer.optimizer.param_groups
    assert {id(p) for group in optimised for p in group["params"]} == mine
    replaced = trainer.seen["replaced"].state_dict()
    key = "model.0.conv.weight"
    assert not torch.equal(model.state_dict()[key], replaced[key])
    assert torch.equal(everything.weights[key], model.state_dict()[key])


def test_trap_02_optimizer_step_has_a_scaler_and_clears_gradients_itself(everything: Any) -> None:
    """Naive: no scaler without float16, or a loop that clears gradients as well, so that no override can keep them."""
    seen = everything.trainer.seen
    assert seen["scaler"] == [(torch.amp.GradScaler, False)] * 4
    assert len(seen["met"]) == 3
    for left, met in zip(seen["left"], seen["met"], strict=False):
        assert left.any() and torch.equal(left, met), "what a step leaves is there when the next batch begins"


def test_trap_03_validate_may_write_best_fitness_itself(everything: Any) -> None:
    """Naive: ``fitness > self.best_fitness`` is false once the override has written it; and no negative number beats
    the stock fitness that ``super().validate()`` wrote before. Both leave no best.pt."""
    seen = everything.trainer.seen
    assert seen["written by the stock method"] == [False, False]
    assert min(seen["stock"]) > max(SCORES)
    assert everything.best["epoch"] == 1 and everything.result.fitness == SCORES[1]


class Forgets(DetectionTrainer):
    def build_optimizer(self, model: nn.Module, **given: Any) -> Any:
        return torch.optim.SGD([p for name, p in model.named_parameters() if "model.0." not in name], lr=0.1)


def test_trap_04_every_parameter_is_in_exactly_one_group_from_the_start(tiny: Any) -> None:
    """Naive: groups of what is trainable when they are built, unchecked: what is thawed later never moves."""
    frozen = tiny.prepare(tiny.trainer(freeze="backbone", freeze_epochs=1))
    model = unwrap_model(frozen.model)
    inside = {id(p) for group in frozen.optimizer.param_groups for p in group["params"]}
    still = [p for p in model.parameters() if not p.requires_grad]
    assert still and {id(p) for p in model.parameters()} == inside

    frozen.optimizer.param_groups[0]["params"].append(model.model[3].conv.weight)
    with pytest.raises(ValueError, match=r"1 parameters are in two groups: model\.3\.conv\.weight"):
        check_groups(model, frozen.optimizer)
    with pytest.raises(ValueError, match=r"in no optimizer group and would never learn: model\.0\.conv\.weight"):
        tiny.prepare(tiny.trainer(Forgets))


@pytest.mark.slow
def test_trap_05_the_wrapper_is_renewed_when_the_trainable_set_changes(script: Any) -> None:
    """Naive: wrapped once, before the first epoch; gradients of what is thawed stay each process's own."""
    first, second = script.ranks[0]["epochs"]
    assert first["averaged"] == first["trainable"] < second["averaged"] == second["trainable"]
    for epoch in range(2):
        assert script.ranks[0]["epochs"][epoch]["weights"] == script.ranks[1]["epochs"][epoch]["weights"]


class Synchronised(DetectionTrainer):
    def set_model_attributes(self) -> None:
        super().set_model_attributes()
        self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)


def test_trap_06_a_frozen_section_is_byte_identical_buffers_and_average_included(tiny: Any) -> None:
    """Naive: ``requires_grad=False`` alone lets statistics move; so does holding ``nn.BatchNorm2d`` by class, since
    synchronised layers are none; and an average that copies buffers late moves too."""
    seen: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def look(trainer: Any) -> None:
        models = (unwrap_model(trainer.model), trainer.ema.ema)
        live, averaged = ({key: value.clone() for key, value in m.state_dict().items()} for m in models)
        seen.append((live, averaged))

    trainer = tiny.trainer(Synchronised, freeze="backbone", freeze_epochs=1)
    trainer.add_callback("on_train_start", look)
    trainer.add_callback("on_fit_epoch_end", look)
    tiny.finish(trainer)
    backbone = unwrap_model(trainer.model).sections()["backbone"]
    for start, frozen, thawed in zip(*seen, strict=True):
        keys = [key for key in start if key.startswith(backbone)]
        assert sum("running_var" in key for key in keys) > 10
        assert [key for key in keys if not torch.equal(start[key], frozen[key])] == []
        assert any(not torch.equal(frozen[key], thawed[key]) for key in keys if "running_var" in key)
        assert any(not torch.equal(frozen[key], thawed[key]) for key in keys if key.endswith("weight"))
        assert any(not torch.equal(start[key], frozen[key]) for key in start if key not in keys)


def test_trap_07_unfreezing_is_a_function_of_progress(tiny: Any) -> None:
    """Naive: a counter, or ``epoch == N``, which a run resumed after the switch never meets."""
    phases = [Phase("backbone", epochs=2).resolved(4)]
    assert [frozen_at(phases, epoch, 4) for epoch in (0, 1, 2, 3)] == [{0}, {0}, set(), set()]
    assert frozen_at(phases, 3, 4) == set(), "asked out of order, or for the first time"

    freezing = {"freeze": "backbone", "freeze_epochs": 1, "epochs": 3}
    straight = tiny.train(**freezing)
    stopped = tiny.stop_after(2, tiny.trainer(**freezing, save=True))
    resumed = tiny.resume(DetectionTrainer, stopped)
    assert all(p.requires_grad for p in resumed.trainer.model.parameters())
    tiny.assert_same(straight, resumed)


def test_trap_08_build_optimizer_may_be_replaced_whole(everything: Any) -> None:
    """Naive: warm-up takes group 0, or 2, for the biases, schedules set one rate for all groups, and with
    ``optimizer=auto`` the override is told the default rate."""
    trainer = everything.trainer
    plan, rates = trainer.plan, trainer.seen["rates"]
    assert trainer.seen["given"] == (plan.optimizer, plan.lr0) and plan.lr0 != trainer.args.lr0
    assert plan.warmup_batches == 2 and len(rates) == 4
    half = plan.lr0 * trainer.lf(0.0) / 2  # the first of two steps of warm-up
    assert rates[0] == pytest.approx([BIAS_LR / 2 + half, half * 0.1, half])
    for bias, slow, fast in rates[1:]:
        assert (bias, slow) == pytest.approx((fast, fast * 0.1))
    assert rates[1][2] > rates[2][2] > rates[3][2] == pytest.approx(plan.lr0 * trainer.lf(0.75))


def test_trap_09_bce_is_called_unreduced_when_it_is_used(everything: Any, tiny_model: Path) -> None:
    """Naive: the element-wise loss bound at construction, or asked to reduce; branches built without ``loss_fn``."""
    shapes = unwrap_model(everything.trainer.model).criterion.shapes
    assert len(shapes) >= 8 and {(len(shape), shape[2]) for shape in shapes} == {(3, 10)}

    built: list[dict[str, Any]] = []

    class Own(v8DetectionLoss):
        def __init__(self, model: Any, tal_topk: int = 10, tal_topk2: int | None = None) -> None:
            super().__init__(model, tal_topk=tal_topk, tal_topk2=tal_topk2)
            built.append({"model": model, "tal_topk": tal_topk, "tal_topk2": tal_topk2})
            self.bce = lambda logits, targets: torch.zeros_like(logits)

    model = DetectionModel(tiny_model, nc=3, verbose=False)
    criterion = E2ELoss(model, loss_fn=Own)
    assert [(b["model"] is model, b["tal_topk"], b["tal_topk2"]) for b in built] == [(True, 10, None), (True, 7, 1)]
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    batch = {"img": torch.rand(1, 3, 64, 64), "cls": torch.zeros(1, 1), "bboxes": boxes, "batch_idx": torch.zeros(1)}
    loss, items = criterion(model.train()(batch["img"]), batch)
    assert items["cls_loss"] == 0 and items["box_loss"] > 0 and math.isfinite(loss.sum().item())


def test_trap_10_a_model_describes_itself_when_its_loss_is_made(everything: Any) -> None:
    """Naive: a table whose backbone stops before the attention block, names with a wrapper's prefix, or a criterion
    made before the model knows its classes and options."""
    trainer = everything.trainer
    told = unwrap_model(trainer.model).told
    assert told["nc"] == 10 and told["names"] == trainer.data["names"] and told["args"] is trainer.args
    for scale in "nx":
        with torch.device("meta"):
            model = DetectionModel(f"yolo26{scale}", nc=3, verbose=False)
        depth = len(model.yaml["backbone"])
        assert depth == 11 and type(model.model[depth - 1]).__name__ == "C2PSA"
        assert model.sections()["backbone"] == tuple(f"model.{i}." for i in range(depth))
        assert all(name.split(".")[0] == "model" and name.split(".")[1].isdigit() for name in model.state_dict())
    assert {len(model_table(f"yolo26{scale}")["backbone"]) for scale in "nsmlx"} == {11}


@pytest.mark.slow
def test_trap_11_a_class_of_a_script_survives_the_launch_of_two_processes(script: Any) -> None:
    """Naive: a launcher that writes a script to run, or starts the user's again: classes of ``__main__`` are not found,
    closures are refused, code above ``train()`` runs once more, or callbacks register twice."""
    assert (script.folder / "ran.txt").read_text() == "once\n"
    assert script.report["same_class"] and script.report["epochs"] == 2 and script.effects["processes"] == 2
    assert script.report["metrics"]["my/epoch"] in (0.0, 1.0), "what an override reports comes back"
    assert script.report["calls"] == {"0": 1, "1": 1}, "what a callback counted in a global variable comes back"
    assert script.report["trainer_metrics"] == script.report["metrics"]
    for rank in script.ranks:
        assert rank["batches"] == 4, "the closure counted every step of its process, once"
        assert rank["batch"] == 4, "half of the global batch"
        assert rank["told"] == [2, ["blue", "green"], 0.5]
    calls = script.effects["hooks"]
    assert calls["Component.0.adjust_loss"] == [4, 4]
    wanted = {"metrics", "class_weights", "best_by", "freeze", "freeze_epochs", "lr_rules", "sync_bn", "clip_grad_norm"}
    seen = {name for name, setting in script.effects["settings"].items() if setting["seen"] not in (None, {}, [])}
    assert seen >= wanted
    assert script.report["files"] == ["best.pt", "best_f1.pt", "last.pt"]


def test_trap_11_closures_that_share_a_variable_share_it_in_every_process(tiny: Any) -> None:
    """Naive: functions pickled one by one, each with a copy of what was one variable: the counter stays 0."""

    def counter() -> tuple[Any, Any]:
        count = 0

        def add(trainer: Any) -> None:
            nonlocal count
            count += 1

        def tell(trainer: Any) -> None:
            trainer.told = count

        return add, tell

    sent: Any = tiny.trainer()
    for event, function in zip(("on_train_batch_end", "on_train_end"), counter(), strict=True):
        sent.add_callback(event, function)
    arrived = handover.unpack(handover.pack(sent, processes=2)[0])[0]
    (add,), (tell,) = (arrived.callbacks.functions[event] for event in ("on_train_batch_end", "on_train_end"))
    for function in (add, add, tell):
        function(arrived)
    assert arrived.told == 2


@pytest.mark.slow
def test_trap_12_the_weights_open_where_nobody_knows_the_script(script: Any) -> None:
    """Naive: a checkpoint that pickles the user's class. They leave as a file for another runtime, too."""
    there = script.elsewhere
    assert there["class"] == "DetectionModel" and there["loaded"] == []
    assert there["boxes"] == script.report["boxes"] and len(there["boxes"]) > 0, "the same boxes, to the last digit"
    assert ".torchscript" in there["exported"] and len(there["found"]) == min(3, len(there["boxes"]))
    for found, box in zip(there["found"], there["boxes"], strict=False):
        assert found == pytest.approx(box, abs=0.01)
    here = script.report["metrics"]
    for name in ("metrics/precision(B)", "metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)"):
        assert there["metrics"][name] == pytest.approx(here[name], abs=1e-6), name
    assert here["metrics/mAP50(B)"] > 0


class Moves(Callback):
    """Notes which parameters ever had a gradient, and where all began."""

    def __init__(self) -> None:
        self.had_gradient: set[str] = set()
        self.start: dict[str, torch.Tensor] = {}

    def on_train_start(self, trainer: Any) -> None:
        self.start = {key: p.detach().clone() for key, p in trainer.model.named_parameters()}

    def adjust_gradients(self, trainer: Any, parameters: Any) -> Any:
        self.had_gradient |= {key for key, p in trainer.model.named_parameters() if p.grad is not None and p.grad.any()}
        return parameters


def test_trap_13_a_tiny_data_set_still_learns(tiny: Any) -> None:
    """Naive: 16 passes for each step to reach 64 images, and at least 100 steps of warm-up: no step in all the run."""
    moves = Moves()
    run = tiny.train(DetectionTrainer, moves, fraction=0.16, batch=4)
    plan = run.trainer.plan
    assert (plan.images, plan.batches) == (10, 3)
    naive = plan.epochs * plan.batches // round(64 / plan.batch)
    assert naive == 0, "what the nominal batch would leave of this run"
    assert plan.accumulate == 1 and plan.updates == 6 and plan.warmup_batches <= 1
    still = {key for key, value in moves.start.items() if torch.equal(value, run.weights[key])}
    assert len(moves.had_gradient) > 0.8 * len(moves.start) and not still & moves.had_gradient


def test_trap_14_options_may_be_assigned_by_their_real_names(everything: Any, tiny: Any) -> None:
    """Naive: a plain namespace takes every name, so a typing mistake changes nothing and nobody hears of it."""
    trainer = everything.trainer
    assert trainer.args.warmup_bias_lr == BIAS_LR, "assigned in build_optimizer()"
    assert trainer.seen["rates"][0][0] > trainer.seen["rates"][0][2], "and it took effect"
    with pytest.raises(ValueError, match=r"warmup_bias_lrr.*did you mean warmup_bias_lr\?"):
        trainer.args.warmup_bias_lrr = 0.0

    class Mistypes(DetectionTrainer):
        def set_model_attributes(self) -> None:
            super().set_model_attributes()
            self.args.mosaics = 0.0

    with pytest.raises(ValueError, match=r"mosaics.*did you mean mosaic\b"):
        tiny.prepare(tiny.trainer(Mistypes))
