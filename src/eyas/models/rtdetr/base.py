"""`SetDetector`: what all models of the RT-DETR family share, whatever their layout.

Legend: ``B`` images, ``k`` detections of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eyas.boxes import cxcywh_to_xyxy
from eyas.losses import SetCriterion
from eyas.models.detector import Detector
from eyas.models.rtdetr.tables import TABLES
from eyas.models.rtdetr.variants import OFFICIAL
from eyas.models.table import Tables

STRIDE = 32.0  # what an input size is a multiple of, for all levels: spec core C.3
MATCHABILITY = 1.5  # gamma of the matchability-aware loss: the paper's
GAINS = {"box": "giou_gain", "cls": "cls_gain", "dfl": "l1_gain"}  # name of a gain here, and in the criterion


class SetDetector(Detector):
    """A detector whose queries answer for one object each: stretched inputs, no NMS, boxes as shares of the image.

    Attributes:
        varifocal: alpha and gamma of the class loss.
        spoken: what people call the family; for messages.
    """

    family: ClassVar[str] = "rtdetr"
    trained_by: ClassVar[str] = "RTDETRTrainer"
    opened_by: ClassVar[str] = "RTDETR"
    stretch: ClassVar[bool] = True
    tables: ClassVar[Tables] = MappingProxyType({**TABLES, **OFFICIAL})
    weighted_loss: ClassVar[str] = "super().init_criterion() or SetCriterion(..., class_weights=self.class_weights)"
    varifocal: ClassVar[tuple[float, float]] = (0.75, 2.0)  # the paper's
    spoken: ClassVar[str] = "RT-DETR"

    @property
    def end2end(self) -> bool:
        """Whether results need no NMS: always."""
        return True

    @end2end.setter
    def end2end(self, value: bool) -> None:
        if not value:
            raise ValueError(f"{self.spoken} needs no NMS and has no branch for it: leave end2end on, and nms off")

    def forward(self, x: Tensor | Mapping[str, Any]) -> Any:
        """Return the loss of a batch, or predictions for images (B, ch, H, W) with values in [0, 1].

        Training: a `SetPrediction`. Evaluation: (detections, `SetPrediction` of one layer); detections are (B, k, 6)
        cx cy w h in [0, 1], score, class; best first.
        """
        return super().forward(x)

    def predict(self, x: Tensor, batch: Mapping[str, Any] | None = None) -> Any:
        """Return predictions for images (B, ch, H, W), see `forward`; ``batch`` has objects for denoising queries."""
        raise NotImplementedError

    def compiled_layers(self) -> tuple[nn.Module, ...]:
        """Return the layers of the decoder: one code for all, for any number of denoising queries."""
        return tuple(self.head.decoder.layers)

    def predict_batch(self, batch: Mapping[str, Any]) -> Any:
        """Return predictions for a batch, whose objects make the denoising queries while training."""
        return self.predict(batch["img"], batch)

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of three losses that come as values alone."""
        return "giou_loss", "cls_loss", "l1_loss"

    def init_criterion(self) -> SetCriterion:
        """Return the loss of this model; override to change it. Of its gains ``box`` is GIoU's, ``dfl`` that of L1."""
        return SetCriterion(**self.criterion_settings())

    def criterion_settings(self) -> dict[str, Any]:
        """Return the arguments of `SetCriterion` that follow from this model and its gains."""
        alpha, gamma = self.varifocal
        settings: dict[str, Any] = {GAINS[name]: gain for name, gain in (self.gains or {}).items()}
        matchability = MATCHABILITY if self.yaml.get("loss") == "matchability" else None
        return settings | {
            "nc": self.nc,
            "alpha": alpha,
            "gamma": gamma,
            "matchability": matchability,
            "class_weights": self.class_weights,
        }

    def in_pixels(self, y: Tensor, height: int, width: int) -> Tensor:
        """Return detections (B, k, 6) x1 y1 x2 y2 in pixels of (B, k, 6) cx cy w h in [0, 1]."""
        corners = cxcywh_to_xyxy(y[..., :4])
        scaled = torch.stack((corners[..., 0::2] * width, corners[..., 1::2] * height), -1).flatten(-2)
        return torch.cat((scaled, y[..., 4:]), -1)

    def class_keys(self) -> frozenset[str]:
        """Return keys whose tensors have one row for each class: score heads and the labels of denoising queries."""
        return frozenset(k for k in self.state_dict() if "score_head" in k or "class_embed" in k)
