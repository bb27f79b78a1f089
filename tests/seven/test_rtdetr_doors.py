"""The needs of RT-DETR through three doors: option == component == override, bit for bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from eyas import RTDETRTrainer
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
from eyas.models import RTDETRDetectionModel
from eyas.optim import unwrap_model
from users_overrides import AddsF1, ChoosesByClassLoss, ClipsItself, IgnoresSevens, Synchronises, freeze_at_first


class WithF1(AddsF1, RTDETRTrainer): ...


class ByClassLoss(ChoosesByClassLoss, RTDETRTrainer): ...


class Synchronised(Synchronises, RTDETRTrainer): ...


class WithoutSevens(IgnoresSevens, RTDETRTrainer): ...


class MyStep(ClipsItself, RTDETRTrainer):
    largest = 0.5


def test_metrics(tiny_set: Any) -> None:
    option = tiny_set.train(metrics=["f1"])
    tiny_set.assert_same(option, tiny_set.train(None, MetricReport("f1")))
    tiny_set.assert_same(option, tiny_set.train(WithF1))
    assert "metrics/F1@iou0.5_best(B)" in option.result.metrics


WEIGHTS = {"1": 4.0, "7": 0.5}


class WeightedModel(RTDETRDetectionModel):
    """A user's class: its loss weighs classes."""

    def init_criterion(self) -> Any:
        self.class_weights = torch.tensor([WEIGHTS.get(self.names[i], 1.0) for i in range(self.nc)])
        return super().init_criterion()


class Weighted(RTDETRTrainer):
    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        return WeightedModel(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)


def test_class_weights(tiny_set: Any, plain_set_run: Any) -> None:
    option = tiny_set.train(class_weights=WEIGHTS, class_weights_normalize=False)
    tiny_set.assert_same(option, tiny_set.train(None, ClassWeights(WEIGHTS, normalize=False)))
    tiny_set.assert_same(option, tiny_set.train(Weighted))
    assert tiny_set.differ(option, plain_set_run)


def test_best_by(tiny_set: Any) -> None:
    option = tiny_set.train(best_by="val/cls_loss")
    tiny_set.assert_same(option, tiny_set.train(None, BestBy({"metric": "val/cls_loss", "mode": "min"})))
    tiny_set.assert_same(option, tiny_set.train(ByClassLoss))
    assert option.best["best_by"]


def test_freeze(tiny_set: Any, plain_set_run: Any) -> None:
    option = tiny_set.train(freeze="backbone", freeze_epochs=1)
    tiny_set.assert_same(option, tiny_set.train(None, Freeze("backbone", epochs=1)))
    function = tiny_set.trainer()
    function.add_callback("on_train_epoch_start", freeze_at_first)
    tiny_set.assert_same(option, tiny_set.finish(function))
    assert tiny_set.differ(option, plain_set_run)


class SlowBackbone(RTDETRTrainer):
    """Six groups, as the guide has them."""

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
        groups: dict[tuple[bool, str], list[nn.Parameter]] = {}
        for key, module in network.named_modules():
            inside = f"{key}.".startswith(network.sections()["backbone"])
            for own, parameter in module.named_parameters(recurse=False):
                norm = isinstance(module, nn.BatchNorm2d | nn.LayerNorm)
                kind = "bias" if "bias" in own else "bn" if norm else "weight"
                groups.setdefault((inside, kind), []).append(parameter)
        assert len(groups) == 6
        listed = [
            {"params": params, "lr": lr * (0.1 if inside else 1), "weight_decay": decay if kind == "weight" else 0.0}
            for (inside, kind), params in groups.items()
        ]
        return getattr(torch.optim, name)(listed, betas=(momentum, 0.999), fused=True)


def test_rates(tiny_set: Any, plain_set_run: Any) -> None:
    option = tiny_set.train(lr_rules={"backbone": 0.1})
    tiny_set.assert_same(option, tiny_set.train(None, LayerRates({"backbone": 0.1})))
    tiny_set.assert_same(option, tiny_set.train(SlowBackbone))
    assert tiny_set.differ(option, plain_set_run)


def test_sync_bn_in_one_process(tiny_set: Any, plain_set_run: Any) -> None:
    tiny_set.assert_same(plain_set_run, tiny_set.train(sync_bn=True))
    tiny_set.assert_same(plain_set_run, tiny_set.train(None, SyncBatchNorm(True)))
    override = tiny_set.train(Synchronised)
    tiny_set.assert_same(plain_set_run, override)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in override.trainer.ema.ema.modules())


def test_clipping(tiny_set: Any, plain_set_run: Any) -> None:
    option = tiny_set.train(clip_grad_norm=0.5)
    tiny_set.assert_same(option, tiny_set.train(None, ClipGradNorm(0.5)))
    override = tiny_set.train(MyStep)
    tiny_set.assert_same(option, override, without=("grad/",))
    assert not any(key.startswith("grad/") for key in override.result.history[0]), "the stock clipping did not run too"
    assert tiny_set.differ(option, plain_set_run)


def test_areas_to_ignore(tiny_set: Any, plain_set_run: Any) -> None:
    option = tiny_set.train(ignore=["7"])
    tiny_set.assert_same(option, tiny_set.train(None, IgnoreAreas(["7"])))
    tiny_set.assert_same(option, tiny_set.train(WithoutSevens))
    assert tiny_set.differ(option, plain_set_run)
