"""Each need through its three doors: option == component == override, bit for bit.

Overrides are written as a user would write them, from what the trainer shows, without the component's own functions.
That synchronised normalisation gives two processes the statistics of one is tested where two processes are.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from eyas import DetectionTrainer
from eyas.callbacks import (
    BestBy,
    ClassWeights,
    ClipGradNorm,
    Freeze,
    IgnoreAreas,
    LayerRates,
    MetricReport,
    SyncBatchNorm,
)
from eyas.losses import EndToEndCriterion
from eyas.models import DetectionModel
from eyas.nn.sync_bn import convert, portable
from eyas.optim import unwrap_model
from users_overrides import AddsF1, ChoosesByClassLoss, ClipsItself, IgnoresSevens, Synchronises, freeze_at_first


# -- 1. metrics --------------------------------------------------------------------------------------------------------
def test_metrics_through_three_doors(found: Any) -> None:
    option = found.train(metrics=["f1"], fraction=1.0)
    component = found.train(DetectionTrainer, MetricReport("f1"), fraction=1.0)
    override = found.train(AddsF1, fraction=1.0)
    found.assert_same(option, component)
    found.assert_same(option, override)
    values = [row["metrics/F1@iou0.5_best(B)"] for row in option.result.history]
    assert all(0 < value < 1 for value in values), "something is found, so zeros are no agreement"
    assert option.result.metrics["metrics/F1@iou0.5_best(B)"] == values[option.result.best_epoch - 1]


# -- 2. class weights --------------------------------------------------------------------------------------------------
# Powers of two, because torch multiplies gradients by BCEWithLogitsLoss(weight=) in another order than a product would.
WEIGHTS = {"1": 4.0, "7": 0.5}


def weights_of(names: dict[int, str]) -> torch.Tensor:
    return torch.tensor([WEIGHTS.get(names[i], 1.0) for i in range(len(names))])


class ByAttribute(DetectionTrainer):
    """Says what classes weigh before the loss is built."""

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        model: Any = super().get_model(cfg, weights, verbose)
        model.class_weights = weights_of(self.data["names"])
        return model


class WeightedModel(DetectionModel):
    """Makes its own loss, whose element-wise part weighs classes."""

    def init_criterion(self) -> Any:
        return EndToEndCriterion(self.weighted(topk=10), self.weighted(topk=7, topk2=1))

    def weighted(self, **choice: Any) -> Any:
        criterion = self.dense_criterion(**choice)
        criterion.bce = nn.BCEWithLogitsLoss(weight=weights_of(self.names), reduction="none")
        return criterion


class ByCriterion(DetectionTrainer):
    """Returns a model of the user's own class, as the guide does."""

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        model = WeightedModel(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)
        model.head.init_biases(self.imgsz())
        if weights:
            model.load(weights)
        return model


def test_class_weights_through_three_doors(tiny: Any, plain_run: Any) -> None:
    option = tiny.train(class_weights=WEIGHTS, class_weights_normalize=False)
    component = tiny.train(DetectionTrainer, ClassWeights(WEIGHTS, normalize=False))
    tiny.assert_same(option, component)
    tiny.assert_same(option, tiny.train(ByAttribute))
    tiny.assert_same(option, tiny.train(ByCriterion))
    assert tiny.differ(option, plain_run)


# -- 3. best by another metric -----------------------------------------------------------------------------------------
class ByClassLossItself(DetectionTrainer):
    """The same, and keeps the book on the best itself before the loop looks, as the guide does."""

    def validate(self) -> Any:
        metrics, _ = super().validate()
        fitness = -metrics["val/cls_loss"]
        if self.best_fitness is None or fitness > self.best_fitness:
            self.best_fitness = fitness
        return metrics, fitness


def test_best_by_through_three_doors(tiny: Any, plain_run: Any) -> None:
    option = tiny.train(best_by="val/cls_loss")
    component = tiny.train(DetectionTrainer, BestBy({"metric": "val/cls_loss", "mode": "min"}))
    tiny.assert_same(option, component)
    tiny.assert_same(option, tiny.train(ChoosesByClassLoss))
    tiny.assert_same(option, tiny.train(ByClassLossItself))
    assert option.best["epoch"] == 1 and plain_run.best["epoch"] == 0, "another epoch than the usual number chooses"
    assert option.best["best_by"] == component.best["best_by"]


# -- 4. freeze, then unfreeze ------------------------------------------------------------------------------------------
def test_freeze_through_three_doors(tiny: Any, plain_run: Any) -> None:
    option = tiny.train(freeze="backbone", freeze_epochs=1)
    component = tiny.train(DetectionTrainer, Freeze("backbone", epochs=1))
    function = tiny.trainer()
    function.add_callback("on_train_epoch_start", freeze_at_first)
    tiny.assert_same(option, component)
    tiny.assert_same(option, tiny.finish(function))
    assert tiny.differ(option, plain_run)
    first, last = option.best["model"]["model.0.conv.weight"], option.last["model"]["model.0.conv.weight"]
    assert option.best["epoch"] == 0 and not torch.equal(first, last), "the backbone moved once it was unfrozen"


# -- 5. rates by layer -------------------------------------------------------------------------------------------------
class SlowBackbone(DetectionTrainer):
    """Sorts parameters by hand into what the stock groups are, times two sections; head first, as nobody else does."""

    def build_optimizer(
        self,
        model: nn.Module,
        name: str = "auto",
        lr: float = 0.001,
        momentum: float = 0.9,
        decay: float = 1e-5,
        iterations: float = 1e5,
    ) -> Any:
        network: Any = unwrap_model(model)
        slow: dict[str, list[nn.Parameter]] = {"bias": [], "bn": [], "weight": []}
        fast: dict[str, list[nn.Parameter]] = {"bias": [], "bn": [], "weight": []}
        for key, module in network.named_modules():
            section = slow if f"{key}.".startswith(network.sections()["backbone"]) else fast
            for own, parameter in module.named_parameters(recurse=False):
                kind = "bias" if own == "bias" else "bn" if isinstance(module, nn.BatchNorm2d) else "weight"
                section[kind].append(parameter)
        groups = [
            {"params": parameters, "lr": rate, "weight_decay": decay if kind == "weight" else 0.0}
            for section, rate in ((fast, lr), (slow, lr * 0.1))
            for kind, parameters in section.items()
        ]
        return getattr(torch.optim, name)(groups, betas=(momentum, 0.999), fused=True)


def test_rates_through_three_doors(tiny: Any, plain_run: Any) -> None:
    option = tiny.train(lr_rules={"backbone": 0.1})
    component = tiny.train(DetectionTrainer, LayerRates({"backbone": 0.1}))
    override = tiny.train(SlowBackbone)
    tiny.assert_same(option, component)
    tiny.assert_same(option, override)
    orders = [[group["lr"] for group in run.trainer.optimizer.param_groups] for run in (option, override)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    assert tiny.differ(option, plain_run)


# -- 6. synchronised normalisation -------------------------------------------------------------------------------------
def test_sync_bn_through_three_doors_in_one_process(tiny: Any, plain_run: Any) -> None:
    tiny.assert_same(plain_run, tiny.train(sync_bn=True))
    tiny.assert_same(plain_run, tiny.train(DetectionTrainer, SyncBatchNorm(True)))
    override = tiny.train(Synchronises)
    tiny.assert_same(plain_run, override)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in override.trainer.ema.ema.modules())


def test_sync_bn_of_component_and_override_converts_the_same_layers(tiny_model: Any) -> None:
    ours = convert(DetectionModel(tiny_model, verbose=False))
    theirs = nn.SyncBatchNorm.convert_sync_batchnorm(DetectionModel(tiny_model, verbose=False))
    theirs = portable(theirs, torch.device("cpu"))
    facts = [
        [
            (name, type(m), m.eps, m.momentum, m.affine, m.track_running_stats, m.num_features)
            for name, m in model.named_modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm)
        ]
        for model in (ours, theirs)
    ]
    assert facts[0] == facts[1] and len(facts[0]) > 50
    assert {fact[1] for fact in facts[0]} == {type(next(m for m in ours.modules() if isinstance(m, nn.SyncBatchNorm)))}
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert ours.state_dict().keys() == theirs.state_dict().keys()


# -- 7. clipping -------------------------------------------------------------------------------------------------------
class MyStep(ClipsItself):
    largest = 0.1


def test_clipping_through_three_doors(tiny: Any, plain_run: Any) -> None:
    option = tiny.train(clip_grad_norm=0.1)
    component = tiny.train(DetectionTrainer, ClipGradNorm(0.1))
    override = tiny.train(MyStep)
    tiny.assert_same(option, component)
    tiny.assert_same(option, override, without=("grad/",))
    logged = [(row["grad/norm"] > 0.1, row["grad/clipped"]) for row in option.result.history]
    assert logged == [(True, 1.0)] * 2
    assert not any(key.startswith("grad/") for key in override.result.history[0]), "the stock clipping did not run too"
    assert tiny.differ(option, plain_run)


# -- all ---------------------------------------------------------------------------------------------------------------
def test_the_comparison_can_fail(tiny: Any, plain_run: Any) -> None:
    tiny.assert_same(plain_run, plain_run)
    for change in ("weights", "average", "log", "best"):
        other = replace(plain_run, result=copy.deepcopy(plain_run.result))
        if change == "weights":
            other.weights["model.0.bn.bias"][0] += 1e-7
        elif change == "average":
            other.last["model"]["model.0.bn.running_var"][0] *= 1 + 1e-6
        elif change == "log":
            other.result.history[0]["val/cls_loss"] += 1e-9
        else:
            other.best["model"]["model.0.bn.bias"][0] += 1e-7
        with pytest.raises(AssertionError):
            tiny.assert_same(plain_run, other)


# -- 8. areas to ignore ------------------------------------------------------------------------------------------------
def test_areas_to_ignore_through_three_doors(tiny: Any, plain_run: Any) -> None:
    option = tiny.train(ignore=["7"])
    component = tiny.train(DetectionTrainer, IgnoreAreas(["7"]))
    tiny.assert_same(option, component)
    tiny.assert_same(option, tiny.train(IgnoresSevens))
    assert tiny.differ(option, plain_run)
    assert option.effects["settings"]["ignore"]["seen"] == ["7"]
    assert option.trainer.validator.metrics.nt_per_class[7] == 0 < plain_run.trainer.validator.metrics.nt_per_class[7]


class KnowsNothing(DetectionTrainer):
    """Has a loss of the user's own."""

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        class Own(DetectionModel):
            def init_criterion(self) -> Any:
                stock = super().init_criterion()
                return lambda preds, batch: stock(preds, batch)

        return Own(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)


def test_areas_that_a_loss_of_ones_own_would_not_see_are_told(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"ignore=\['7'\]: the data have .* areas .* the loss function knows nothing"):
        tiny.prepare(tiny.trainer(KnowsNothing, ignore=["7"]))
    data = {**yaml.safe_load(Path(tiny.data).read_text()), "path": str(Path(tiny.data).parent), "ignore": ["7"]}
    tiny.prepare(tiny.trainer(KnowsNothing, data=data))
    assert "the loss function knows nothing" in caplog.text
    caplog.clear()
    tiny.prepare(tiny.trainer(KnowsNothing, data=data, ignore=False))
    assert "knows nothing" not in caplog.text


def test_areas_that_there_are_not_are_refused(tiny: Any) -> None:
    with pytest.raises(ValueError, match="ignore=True has no effect: the training data have no area"):
        tiny.prepare(tiny.trainer(ignore=True))
    with pytest.raises(ValueError, match="ignore: there is no class 'seven'"):
        tiny.prepare(tiny.trainer(ignore=["seven"]))
