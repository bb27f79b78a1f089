"""The trainer of the RT-DETR family: stretched images, stages that end together, a slower trained backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eyas.callbacks import Callback
from eyas.callbacks.rates import LayerRates, layer_rates
from eyas.config import TrainOptions
from eyas.models import model_table
from eyas.nn.unwrap import unwrap_model
from eyas.recipes import RTDETR, Recipe
from eyas.recipes.backbones import fitting_rate
from eyas.run.plan import Choice, Plan
from eyas.train.components import Given
from eyas.train.detection import DetectionTrainer


class RTDETRTrainer(DetectionTrainer):
    """Trains detectors that predict a set; see ``DetectionTrainer`` for what may be overridden.

    Images are stretched to the square input (spec core E.8). ``multi_scale`` and mosaic end together, with the last
    part of the run. Weights that were given learn more slowly in the backbone, by the ratio that its table states.
    """

    recipe: Recipe = RTDETR
    family: str = "rtdetr"
    stretch: bool = True
    suits: tuple[float, str] | None = None  # the backbone's rate as a share of the others', and why
    spoken: str = "RT-DETR"

    def __init__(
        self,
        cfg: TrainOptions | Mapping[str, Any] | str | Path | None = None,
        overrides: TrainOptions | Mapping[str, Any] | None = None,
        _callbacks: Given = None,
    ) -> None:
        super().__init__(cfg, overrides, _callbacks)
        refuse_deterministic(self.args, self.device, self.spoken)
        if self.args.nms:
            raise ValueError(
                f"nms=True has no effect on {self.spoken}, whose queries do not repeat each other; leave it out."
            )

    @staticmethod
    def table_to_train(cfg: Any, from_scratch: bool) -> dict[str, Any]:
        """Return the model's table; random weights are all trained, where given ones keep stem and norms frozen."""
        table = model_table(cfg)
        if from_scratch and table.get("frozen_norms"):
            table |= {"frozen_norms": False, "freeze_stem": False}
        return table

    def closing_augmentation(self) -> list[str]:
        """Return which of mosaic, mixing and multi-scale are on, and end before the run does."""
        return [*super().closing_augmentation(), *(["multi_scale"] if self.fitted("multi_scale") else [])]

    def is_deterministic(self) -> bool:
        """Whether kernels must be deterministic: never on a GPU, where deformable attention has no such kernel."""
        return super().is_deterministic() and self.device.type == "cpu"

    def size_of_step(self) -> int:
        """Side in pixels of this step's images: what ``multi_scale`` draws, up to the last part of the run."""
        return self.imgsz() if self.augmentation_closed() else super().size_of_step()

    def make_plan(self) -> Plan:
        """Derive the run's plan; refuse a ``multi_scale`` that ends before it begins."""
        plan = super().make_plan()
        self.suits = self.backbone_rate(plan)
        if self.suits is not None and self.resume_from is None:
            ratio, why = self.suits
            plan = replace(plan, decisions=(*plan.decisions, Choice("backbone rate", ratio, f"x lr0: {why}")))
        if self.args.is_typed("multi_scale") and self.args.multi_scale and plan.close_mosaic >= plan.epochs:
            raise ValueError(
                f"multi_scale={self.args.multi_scale:g} has no effect: close_mosaic={plan.close_mosaic} ends it before "
                f"the first of {plan.epochs} epochs."
            )
        return plan

    def default_groups(self, network: nn.Module, name: str, lr: float, decay: float) -> list[dict[str, Any]]:
        """Return the groups {weight, bn, bias}, and the same for the backbone where that has a rate of its own."""
        groups, ratio = super().default_groups(network, name, lr, decay), self.backbone_ratio()
        return groups if ratio == 1 else layer_rates(network, groups, {"backbone": ratio})

    def backbone_ratio(self) -> float:
        """Return the backbone's rate as a share of the others': 1 for random weights, or where someone else decides."""
        return 1.0 if self.suits is None else self.suits[0]

    def backbone_rate(self, plan: Plan) -> tuple[float, str] | None:
        """Return `backbone_ratio` with its reason; None for random weights, or where someone else decides."""
        network: Any = unwrap_model(self.model)
        decided = any(decides_backbone(callback, network) for callback in self.callbacks.callbacks)
        if plan.from_scratch or decided:
            return None
        if (stated := network.yaml.get("lr_ratio", 1.0)) is not None:
            return float(stated), "published with this model"
        backbone = network.backbone
        millions = sum(p.numel() for name, p in backbone.named_parameters() if name.startswith(backbone.body)) / 1e6
        return fitting_rate(backbone.kind, millions, backbone.images)


def decides_backbone(callback: Callback, model: Any) -> bool:
    """Whether a component sets rates of parameters in the backbone."""
    if not isinstance(callback, LayerRates):
        return callback.decides == LayerRates.decides
    return callback.sets_rate_of(model, "backbone")


def refuse_deterministic(args: TrainOptions, device: torch.device, family: str = "RT-DETR") -> None:
    """Stop if bit-equal results were asked for where this family cannot give them.

    Raises:
        ValueError: ``deterministic=True`` was typed, and the device is not a CPU.
    """
    if args.deterministic and args.is_typed("deterministic") and device.type != "cpu":
        raise ValueError(
            f"deterministic=True cannot be kept on {device.type} by {family}: the gradient of its deformable attention "
            "is summed in no fixed order there. Leave it out, or train on the CPU."
        )
