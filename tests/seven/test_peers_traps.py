"""Nine traps into which recipes of the field's most used trainer fall, most of them silently, when they are combined.

Each test shows the trap in a few lines first, then the recipe as a user would write it, under Eyas.
"""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import nn

from eyas import DetectionTrainer, TrainOptions
from eyas.callbacks import EVENTS, CallbackList
from eyas.losses import EndToEndCriterion
from eyas.models import DetectionModel
from eyas.models.catalog import model_table
from eyas.nn.norms import hold_norms
from eyas.optim import select, unwrap_model
from eyas.recipes import YOLO26
from eyas.train.plan import make_plan

BACKBONE = tuple(f"model.{i}." for i in range(11))


# -- 1. freeze and rates by layer --------------------------------------------------------------------------------------
class TwoRates(DetectionTrainer):
    """A backbone ten times slower, frozen parameters left out, as the recipe has it; notes what it was given."""

    given: tuple[str, float] = ("", 0.0)

    def build_optimizer(
        self,
        model: nn.Module,
        name: str = "auto",
        lr: float = 0.001,
        momentum: float = 0.9,
        decay: float = 1e-5,
        iterations: float = 1e5,
    ) -> Any:
        self.given = (name, lr)
        trainable = [(key, p) for key, p in unwrap_model(model).named_parameters() if p.requires_grad]
        slow = [p for key, p in trainable if key.startswith(BACKBONE)]
        fast = [p for key, p in trainable if not key.startswith(BACKBONE)]
        groups = [{"params": slow, "lr": lr * 0.1}, {"params": fast, "lr": lr}]
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), weight_decay=decay)


class Backbone:
    """Notes a weight of the backbone, and the ratio of its rate to the head's, after every epoch."""

    def __init__(self, trainer: DetectionTrainer) -> None:
        self.weights: list[torch.Tensor] = []
        self.ratios: list[float] = []
        trainer.add_callback("on_train_start", self.look)
        trainer.add_callback("on_fit_epoch_end", self.look)

    def look(self, trainer: Any) -> None:
        model: Any = unwrap_model(trainer.model)
        first, head = model.model[0].conv.weight, model.head.cv2[0][-1].weight
        self.weights.append(first.detach().clone())
        rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
        self.ratios.append(rates[id(first)] / rates[id(head)])

    def assert_frozen_then_slow(self) -> None:
        start, frozen, thawed = self.weights
        assert torch.equal(start, frozen), "frozen in the first epoch"
        assert not torch.equal(frozen, thawed), "in the optimizer, so it moves in the second"
        assert self.ratios == pytest.approx([0.1] * 3)


def freeze_one_epoch(trainer: Any) -> None:
    for key, parameter in unwrap_model(trainer.model).named_parameters():
        parameter.requires_grad_(trainer.epoch >= 1 or not key.startswith(BACKBONE))
    trainer.freeze_layer_names = [".dfl", *(BACKBONE if trainer.epoch < 1 else ())]


def test_trap_1_naive_an_optimizer_built_while_frozen() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.requires_grad_(True)
    before = model[0].weight.detach().clone()
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert model[0].weight.grad.any() and torch.equal(model[0].weight, before), "trainable, and never trained"


def test_trap_1_freeze_and_rates_by_option(tiny: Any) -> None:
    trainer = tiny.trainer(freeze="backbone", freeze_epochs=1, lr_rules={"backbone": 0.1})
    seen = Backbone(trainer)
    tiny.finish(trainer)
    seen.assert_frozen_then_slow()


def test_trap_1_freeze_by_option_and_rates_by_override(tiny: Any) -> None:
    trainer = tiny.trainer(TwoRates, freeze="backbone", freeze_epochs=1)
    seen = Backbone(trainer)
    tiny.finish(trainer)
    seen.assert_frozen_then_slow()


@pytest.fixture(scope="module")
def recipes(tiny: Any) -> tuple[Any, Backbone]:
    """A run with a freezing function and rates by override."""
    trainer = tiny.trainer(TwoRates)
    trainer.add_callback("on_train_epoch_start", freeze_one_epoch)
    seen = Backbone(trainer)
    return tiny.finish(trainer), seen


def test_trap_1_freeze_by_function_and_rates_by_override(recipes: tuple[Any, Backbone]) -> None:
    recipes[1].assert_frozen_then_slow()


# -- 2. freeze and several processes -----------------------------------------------------------------------------------
# The trap by itself, a wrapper that averages no gradients of layers thawed later, is shown by
# tests/multi/test_parallel_ranks.py::test_trap_2_freeze_and_ddp. Here: a whole training, from a user's script.
@pytest.mark.slow
def test_trap_2_freeze_and_several_processes(script: Any) -> None:
    one, other = (rank["epochs"] for rank in script.ranks)
    assert one[1]["trainable"] > one[0]["trainable"], "thawed in the second epoch"
    for mine, theirs in zip(one, other, strict=True):
        assert mine["weights"] == theirs["weights"], "the processes hold the same weights, bit for bit"
        assert mine["averaged"] == mine["trainable"], "gradients of all that trains are averaged"


# -- 3. freeze and resume ----------------------------------------------------------------------------------------------
def thaw_when_it_is_time(trainer: Any) -> None:
    """As the recipe has it: acts in one epoch only."""
    if trainer.epoch == 1:
        unwrap_model(trainer.model).requires_grad_(True)
        trainer.freeze_layer_names = [".dfl"]


class Thaws(DetectionTrainer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback("on_train_epoch_start", thaw_when_it_is_time)


def test_trap_3_naive_a_switch_that_a_resumed_run_jumps_over() -> None:
    frozen = True  # applied again when the run is set up anew
    for epoch in range(2, 4):
        frozen = frozen and epoch != 1
    assert frozen, "to the end"


def test_trap_3_freeze_and_resume(tiny: Any) -> None:
    """That the weights are those of an uninterrupted run, bit for bit, is trap 7 of the contract."""
    stopped = tiny.stop_after(2, tiny.trainer(Thaws, freeze="backbone", epochs=3, save=True))
    saved = torch.load(stopped.last, weights_only=True)["state"]["model"]
    resumed = tiny.resume(Thaws, stopped)
    assert all(p.requires_grad for p in resumed.trainer.model.parameters())
    assert resumed.trainer.freeze_layer_names == [".dfl"]
    for key in ("model.0.conv.weight", "model.0.bn.running_mean"):
        assert not torch.equal(saved[key], resumed.weights[key]), "and it moves on"


# -- 4. freeze and synchronised normalisation --------------------------------------------------------------------------
class Synchronised(DetectionTrainer):
    def set_model_attributes(self) -> None:
        super().set_model_attributes()
        self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)


def layer_with_norm(norm: type[nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), norm(4))).train()


def moved(model: nn.Module) -> bool:
    """Whether statistics move in a forward pass."""
    before = model[0][1].running_mean.clone()
    model(torch.rand(2, 3, 4, 4))
    return not torch.equal(before, model[0][1].running_mean)


def test_trap_4_naive_holding_layers_by_class() -> None:
    assert not issubclass(nn.SyncBatchNorm, nn.BatchNorm2d)
    by_class, by_us = layer_with_norm(nn.SyncBatchNorm), layer_with_norm(nn.SyncBatchNorm)
    for module in by_class.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert moved(by_class)
    assert hold_norms(by_us, ["0."]) == 1 and not moved(by_us)


def test_trap_4_freeze_and_sync_bn(tiny: Any) -> None:
    start: dict[str, torch.Tensor] = {}
    trainer = tiny.trainer(Synchronised, freeze="backbone")
    trainer.add_callback("on_train_start", lambda t: start.update(clone(unwrap_model(t.model))))
    run = tiny.finish(trainer)
    assert all(
        isinstance(module, nn.SyncBatchNorm)
        for module in trainer.model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    )
    frozen = [key for key in start if key.startswith(BACKBONE)]
    assert any("running_mean" in key for key in frozen) and any("num_batches" in key for key in frozen)
    for key in frozen:
        assert torch.equal(run.weights[key], start[key]) and torch.equal(run.last["model"][key], start[key]), key
    neck = next(key for key in start if key.startswith("model.13.") and "running_mean" in key)
    assert not torch.equal(run.weights[neck], start[neck])


def clone(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


# -- 5. the backbone by count ------------------------------------------------------------------------------------------
def test_trap_5_ten_layers_are_not_the_backbone(tiny_model: Path) -> None:
    model = DetectionModel(tiny_model, verbose=False)
    names = [name for name, _ in model.named_parameters()]
    counted = {name for name in names if name.startswith(tuple(f"model.{i}." for i in range(10)))}
    backbone = set(select(model, "backbone"))
    left_out = backbone - counted
    assert left_out and all(name.startswith("model.10.") for name in left_out), "the naive count misses a layer"
    assert type(model.model[10]).__name__ == "C2PSA"
    assert backbone == {name for name in names if name.startswith(BACKBONE)} == set(select(model, 11))
    assert set(select(model, 10)) == counted, "a number means what it says"
    assert not backbone & (set(select(model, "neck")) | set(select(model, "head")))
    for scale in "nsmlx":
        assert len(model_table(f"yolo26{scale}")["backbone"]) == 11


# -- 6. best by a metric on another scale ------------------------------------------------------------------------------
SCORES = (-5.0, -2.0)


class ByMyScore(DetectionTrainer):
    """Keeps the book on the best itself, as the recipe has it; also reports the score."""

    def validate(self) -> Any:
        metrics, fitness = super().validate()
        assert fitness is not None and fitness >= 0, "the stock number is larger than every score"
        fitness = SCORES[self.epoch]
        if self.best_fitness is None or fitness > self.best_fitness:
            self.best_fitness = fitness
        return metrics | {"my/score": fitness}, fitness


@pytest.fixture(scope="module")
def by_my_score(tiny: Any) -> Any:
    trainer = tiny.trainer(ByMyScore)
    fired: Counter[str] = Counter()
    for event in EVENTS:
        trainer.add_callback(event, lambda t, event=event: fired.update([event]))
    return tiny.finish(trainer), fired


def test_trap_6_naive_the_stock_score_is_the_best_before_the_override_speaks() -> None:
    best, written = None, []
    for epoch, score in enumerate(SCORES):
        stock = 0.0
        best = stock if best is None else max(best, stock)  # inside super().validate()
        best = max(best, score)
        written += [epoch] if score == best else []
    assert written == [], "no best.pt at all"


def test_trap_6_best_by_a_metric_on_any_scale(by_my_score: Any) -> None:
    run, _ = by_my_score
    assert (run.result.best_epoch, run.result.fitness) == (2, -2.0)
    assert run.best["epoch"] == 1 and run.best["fitness"] == -2.0
    assert run.result.detection is not None and run.trainer.best.exists()


# -- 7. class weights and files ----------------------------------------------------------------------------------------
class WeightedModel(DetectionModel):
    """A user's own model with a user's own loss."""

    def init_criterion(self) -> Any:
        stock = super().init_criterion()
        weights = torch.ones(self.nc)
        weights[1] = 3.0
        for branch in (stock.one2many, stock.one2one):
            branch.bce = nn.BCEWithLogitsLoss(pos_weight=weights, reduction="none")
        return EndToEndCriterion(stock.one2many, stock.one2one)


class Weighted(DetectionTrainer):
    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        model = WeightedModel(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)
        model.head.init_biases(self.imgsz())
        if weights:
            model.load(weights)
        return model


def test_trap_7_naive_a_pickled_class_of_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = type("MineOfAScript", (nn.Linear,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "MineOfAScript", mine, raising=False)
    torch.save({"model": mine(1, 1)}, tmp_path / "best.pt")
    monkeypatch.undo()
    with pytest.raises(AttributeError, match="MineOfAScript"):
        torch.load(tmp_path / "best.pt", weights_only=False)


def test_trap_7_class_weights_and_files(tiny: Any, plain_run: Any) -> None:
    run = tiny.train(Weighted)
    assert type(unwrap_model(run.trainer.model)) is WeightedModel and tiny.differ(run, plain_run)
    for file in (run.result.best, run.result.last):
        checkpoint = torch.load(file, weights_only=True)  # tensors and plain values, or an error
        assert checkpoint["model_class"].endswith(".WeightedModel")
        network = DetectionModel(checkpoint["yaml"], nc=checkpoint["nc"], names=checkpoint["names"], verbose=False)
        assert network.load(checkpoint, verbose=False) == len(network.state_dict()), "the stock class can hold it"


# -- 8. rates by layer and optimizer=auto ------------------------------------------------------------------------------
def test_trap_8_rates_by_layer_keep_the_rate_that_auto_chose(recipes: tuple[Any, Backbone], tiny: Any) -> None:
    run, _ = recipes
    plan = run.trainer.plan
    assert (plan.optimizer, plan.lr0) == (YOLO26.short.name, YOLO26.short.lr0)
    assert run.trainer.given == (plan.optimizer, plan.lr0), "an override is told what auto chose"
    assert TrainOptions().lr0 != plan.lr0, "and not the default of the option, which suits a long run"
    rules = tiny.prepare(tiny.trainer(lr_rules={"backbone": 0.1}))
    assert {group["initial_lr"] for group in rules.optimizer.param_groups} == {plan.lr0, plan.lr0 * 0.1}


def test_trap_8_a_long_run_has_another_optimizer() -> None:
    sizes = {"images": 80_000, "batch": 8, "batches": 10_000, "device": "cuda"}
    plan = make_plan(TrainOptions.from_dict({"epochs": 100}, {"epochs": "call"}), YOLO26, **sizes)
    assert (plan.optimizer, plan.lr0) == (YOLO26.long.name, YOLO26.long.lr0) != (YOLO26.short.name, YOLO26.short.lr0)


# -- 9. callbacks ------------------------------------------------------------------------------------------------------
class Registers(DetectionTrainer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback("on_train_epoch_start", thaw_when_it_is_time)


def test_trap_9_naive_a_class_made_anew_with_the_callbacks_of_the_first(tiny: Any) -> None:
    first = Registers(overrides=tiny.options())
    hooks = CallbackList([], {event: list(fns) for event, fns in first.callbacks.functions.items()})
    second = Registers(overrides=tiny.options(), _callbacks=hooks)
    assert len(second.callbacks.functions["on_train_epoch_start"]) == 2


def test_trap_9_callbacks_travel_and_are_registered_once(tiny: Any) -> None:
    sent = Registers(overrides=tiny.options(freeze="backbone", clip_grad_norm=0.1))
    arrived = pickle.loads(cloudpickle.dumps(sent))
    assert len(arrived.callbacks.functions["on_train_epoch_start"]) == 1
    assert arrived.callbacks.keys() == sent.callbacks.keys()


@pytest.mark.slow
def test_trap_9_callbacks_run_once_in_each_of_two_processes(script: Any) -> None:
    assert [rank["in_init"] for rank in script.ranks] == [{"0": 1, "1": 1}] * 2
    hooks = {name: calls for name, calls in script.effects["hooks"].items() if "registered_in_init" in name}
    assert list(hooks.values()) == [[2, 2]]


@pytest.mark.parametrize("event", ["optimizer_step", "on_before_zero_grad", "on_params_update"])
def test_trap_9_an_event_that_never_fires_is_refused(tiny: Any, event: str) -> None:
    with pytest.raises(ValueError, match=f"'{event}' is not an event of the trainer"):
        tiny.trainer().add_callback(event, print)


def test_trap_9_every_event_fires_and_metrics_reach_the_result(by_my_score: Any) -> None:
    run, fired = by_my_score
    assert set(fired) == set(EVENTS) - {"on_exception"}
    assert run.result.metrics["my/score"] == -2.0, "that of the best epoch"
    assert [row["my/score"] for row in run.result.history] == list(SCORES)
