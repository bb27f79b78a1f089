"""A box loss of the user's own, and a term that is not in the library, train and are logged, in both families."""

from __future__ import annotations

import csv
import math
from typing import Any

import pytest
from torch import Tensor

from eyas.boxes import elementwise_giou
from eyas.losses import DenseCriterion, EndToEndCriterion, SetCriterion, ciou_loss
from eyas.losses.dense import SupervisedAnchors
from eyas.losses.set_criterion import Objects, Supervised, paired_boxes
from eyas.models import DetectionModel, RTDETRDetectionModel
from eyas.train import DetectionTrainer, RTDETRTrainer


class OwnDense(DenseCriterion):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gains["centre"] = 1.0

    def box_loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return 1 - elementwise_giou(pred, target)

    def branch_losses(self, anchors: SupervisedAnchors) -> dict[str, Tensor]:
        away = (anchors.boxes - anchors.target_boxes).unflatten(-1, (2, 2)).mean(-2).abs().sum(-1)
        return {**super().branch_losses(anchors), "centre": (away * anchors.assigned.weight).sum()}


class OwnSet(SetCriterion):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gains["centre"] = 1.0

    def box_loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return ciou_loss(pred, target)

    def layer_losses(self, stack: Supervised, objects: Objects) -> dict[str, Tensor]:
        pred, target, _ = paired_boxes(stack, objects)
        return {
            **super().layer_losses(stack, objects),
            "centre": (pred - target)[..., :2].abs().sum((1, 2)),
        }


class DenseModel(DetectionModel):
    def init_criterion(self) -> Any:
        shared: dict[str, Any] = {"nc": self.nc, "strides": self.stride.tolist()}
        return EndToEndCriterion(OwnDense(**shared), OwnDense(**shared, topk=7, topk2=1))


class SetModel(RTDETRDetectionModel):
    def init_criterion(self) -> Any:
        return OwnSet(nc=self.nc)


class DenseTrainer(DetectionTrainer):
    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        return DenseModel(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)


class SetTrainer(RTDETRTrainer):
    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        return SetModel(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)


@pytest.mark.parametrize("family", ["dense", "set"])
def test_own_terms_train_and_are_logged(options: Any, tiny_rtdetr: Any, family: str) -> None:
    changes = {"epochs": 1, "batch": 8, "fraction": 0.25}
    if family == "dense":
        trainer: Any = DenseTrainer(overrides=options(**changes))
        names = ["box_loss", "cls_loss", "l1_loss", "centre_loss"]
    else:
        trainer = SetTrainer(overrides=options(**changes, model=str(tiny_rtdetr)))
        names = ["giou_loss", "cls_loss", "l1_loss", "centre_loss"]
    trainer.train()
    with (trainer.save_dir / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    for split in ("train", "val"):
        assert [name for name in row if name.startswith(f"{split}/")] == [f"{split}/{name}" for name in names]
        assert all(math.isfinite(float(row[f"{split}/{name}"])) for name in names)
        assert float(row[f"{split}/centre_loss"]) > 0
