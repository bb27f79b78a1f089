"""A family of models from outside the package: a detector of its own, its trainer and recipe, and one line of registry.

Importing this module is all that a process needs to know the family. Run as a script, ``python toy_family.py OPTIONS``
with a JSON of options, it trains a model whose classes lie in ``__main__``, as a user's do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eyas import YOLO, DetectionTrainer
from eyas.boxes import distances_to_boxes
from eyas.families import Family, register
from eyas.losses import DenseCriterion
from eyas.losses.points import anchor_points
from eyas.models import Detector, ModelTableError
from eyas.models.postprocess import topk_detections
from eyas.models.table import Table, Tables
from eyas.nn import Conv
from eyas.recipes import OptimizerChoice, Recipe

STRIDE = 8
ADAMW = OptimizerChoice("AdamW", lr0=0.003, momentum=0.9)


def table(width: int) -> Table:
    return {"arch": "toy", "nc": 80, "width": width, "yaml_file": f"toy-{width}.yaml"}


class ToyHead(nn.Conv2d):
    """Distances to four sides, then class logits, for every cell: (B, c, H, W) -> (B, 4 + C, H, W)."""

    def __init__(self, c: int, nc: int) -> None:
        super().__init__(c, 4 + nc, 1)
        self.max_det = 300
        self.agnostic_nms = False


class ToyNet(Detector):
    """Three convolutions and a head; images are stretched to the square."""

    family: ClassVar[str] = "toy"
    trained_by: ClassVar[str] = "ToyTrainer"
    stretch: ClassVar[bool] = True
    arch: ClassVar[str] = "toy"
    tables: ClassVar[Tables] = {"toy-8": lambda: table(8), "toy-16": lambda: table(16)}
    end2end = True  # type: ignore[assignment]  # one detection for each cell: no NMS

    @classmethod
    def checked(cls, table: Table, where: str) -> Table:
        if not isinstance(table.get("width"), int):
            raise ModelTableError(f"{where}: width must be a whole number")
        return {"nc": 80, **table}

    def build(self, table: Mapping[str, Any]) -> None:
        width = table["width"]
        self.trunk = nn.Sequential(Conv(table["channels"], width, 3, 2), Conv(width, width, 3, 2))
        self.neck = Conv(width, width, 3, 2)
        self.output = ToyHead(width, self.nc)
        nn.init.constant_(self.output.bias, -2.0)
        self.stride = torch.tensor([float(STRIDE)])

    @property
    def head(self) -> ToyHead:
        return self.output

    def sections(self) -> dict[str, tuple[str, ...]]:
        return {"backbone": ("trunk.",), "neck": ("neck.",), "head": ("output.",)}

    def class_keys(self) -> frozenset[str]:
        return frozenset()

    def predict(self, x: Tensor) -> Any:
        maps = self.neck(self.trunk(x))
        boxes, scores = self.output(maps).flatten(2).split((4, self.nc), 1)
        raw = {"boxes": boxes.exp(), "scores": scores, "feats": [maps]}
        if self.training:
            return raw
        points, stride = anchor_points([maps], [STRIDE])
        corners = distances_to_boxes(raw["boxes"].transpose(1, 2), points) * stride
        return topk_detections(corners, scores.sigmoid().transpose(1, 2), self.head.max_det), raw

    def init_criterion(self) -> DenseCriterion:
        gains = {f"{name}_gain": gain for name, gain in (self.gains or {}).items()}
        return DenseCriterion(nc=self.nc, strides=[STRIDE], class_weights=self.class_weights, **gains)


class ToyTrainer(DetectionTrainer):
    """Trains the toys; what it inherits is enough."""

    family = "toy"
    stretch = True
    recipe = Recipe(short=ADAMW, long=ADAMW, options={"box": 5.0})


TOY = register(Family("toy", detectors=(ToyNet,), trainer=ToyTrainer))

if __name__ == "__main__":
    trained = YOLO("toy-8").train(**json.loads(sys.argv[1]))
    print(trained.last)
