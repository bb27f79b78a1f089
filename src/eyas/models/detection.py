"""`DetectionModel`: a trunk built from a table, and a detection head (spec core A.7, C).

Legend: ``B`` images, ``A`` anchors, ``C`` classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from eyas.log import LOGGER
from eyas.losses import DenseCriterion, EndToEndCriterion
from eyas.models.graph import Built, Layer, LayerContext
from eyas.models.graph_detector import GraphDetector
from eyas.models.heads import Detect
from eyas.models.table import Table, Tables
from eyas.models.yolo26 import TABLES


def detect(ctx: LayerContext, nc: int | str = "nc", reg_max: int | None = None, end2end: bool | None = None) -> Built:
    """Build the head; its settings live in the table's header, and a row may only repeat them."""
    head = Detect(
        ctx.inputs,
        nc=ctx.classes("Detect", nc),
        reg_max=ctx.table["reg_max"] if reg_max in (None, "reg_max") else reg_max,
        end2end=ctx.table["end2end"] if end2end in (None, "end2end") else end2end,
    )
    return head, 0


class DetectionModel(GraphDetector):
    """A detector built from a table of numbered layers, whose last is `Detect`; see `Detector` for what all share.

    Attributes:
        stride: pixels per cell of each level, a CPU tensor.
    """

    family: ClassVar[str] = "yolo26"
    tables: ClassVar[Tables] = TABLES
    head_layer: ClassVar[str] = "Detect"
    layers: ClassVar[Mapping[str, Layer]] = MappingProxyType({"Detect": Layer(detect, many=True)})
    weighted_loss: ClassVar[str] = "self.dense_criterion(...)"

    def __init__(
        self,
        cfg: str | Path | Mapping[str, Any] = "yolo26n.yaml",
        ch: int = 3,
        nc: int | None = None,
        names: Mapping[int, str] | list[str] | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(cfg, ch, nc, names, verbose)

    @classmethod
    def checked(cls, table: Table, where: str) -> Table:
        """Return a table of rows with its defaults filled in, see `GraphDetector.checked`."""
        table = super().checked(table, where)
        table.setdefault("reg_max", 1)
        return table

    def start_head(self, strides: list[float]) -> None:
        """Tell the head its strides, and set its biases."""
        self.stride = self.head.stride = torch.tensor(strides, device="cpu")
        self.head.init_biases()

    def start_outputs(self, imgsz: int) -> None:
        """Start class outputs at the density of objects in images of ``imgsz`` px.

        The usual start, made for 640 px, is off by 3.2 in the logit at 128 px, which AdamW at 0.002 needs over a
        thousand steps to make up for.
        """
        self.head.init_biases(imgsz)

    # --- parts -----------------------------------------------------------------------------------------------------

    @property
    def head(self) -> Detect:
        """The detection head, the last layer."""
        return self.model[-1]  # type: ignore[return-value]

    def faster_parts(self) -> tuple[str, ...]:
        """Return prefixes of parameters that MuSGD lets learn faster: the class branches (spec core B.5)."""
        return self.sections()["head.cls"]

    @property
    def end2end(self) -> bool:
        """Whether inference uses the NMS-free branch."""
        return self.head.has_one2one and self.head.end2end

    @end2end.setter
    def end2end(self, value: bool) -> None:
        if value and not self.head.has_one2one:
            raise ValueError("this model has no one-to-one branch: its results need NMS (nms=True)")
        if not value and self.head.cv2 is None:
            raise ValueError(
                "fuse() has dropped this model's one-to-many branch: leave nms unset, or use the unfused model"
            )
        self.head.end2end = bool(value)

    # --- forward ---------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor | Mapping[str, Any]) -> Any:
        """Return the loss of a batch, or predictions for images (B, ch, H, W) with values in [0, 1].

        Training: {"one2many": raw, "one2one": raw}, raw = {"boxes" (B, 4 reg_max, A), "scores" (B, C, A), "feats"}.
        Evaluation: (detections, that): (B, k, 6) x1 y1 x2 y2 in pixels, score, class; with ``end2end`` off
        (B, 4 + C, A) cx cy w h in pixels and scores in [0, 1], which still need NMS.
        """
        return super().forward(x)

    def predict(self, x: Tensor) -> Any:
        """Return predictions for images (B, ch, H, W); see `forward`."""
        return self.head(self.head_inputs(x))

    # --- loss ------------------------------------------------------------------------------------------------------

    def loss(self, batch: Mapping[str, Any], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector (3,) times B, and detached items {"box_loss", "cls_loss", "l1_loss"}.

        ``preds`` are this model's predictions for ``batch["img"]``; None computes them.
        """
        return super().loss(batch, preds)

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of three losses that come as values alone."""
        return "box_loss", "cls_loss", "dfl_loss" if self.head.reg_max > 1 else "l1_loss"

    def init_criterion(self) -> Any:
        """Return the loss of this model; override to change it."""
        if not self.head.has_one2one:
            return self.dense_criterion(topk=10)
        return EndToEndCriterion(self.dense_criterion(topk=10), self.dense_criterion(topk=7, topk2=1))

    def fit_criterion(self) -> None:
        """Let the loss of one branch teach both, as the stock loss does, where this model has two."""
        if self.head.has_one2one and isinstance(self.criterion, DenseCriterion):
            LOGGER.info("%s is the loss of one branch: both are trained by it.", type(self.criterion).__name__)
            self.criterion = EndToEndCriterion(self.criterion, self.criterion.one_to_one())

    def dense_criterion(self, *, topk: int, topk2: int | None = None) -> DenseCriterion:
        """Return the loss of one branch with this model's classes, strides and gains."""
        gains = {f"{name}_gain": gain for name, gain in (self.gains or {}).items()}
        return DenseCriterion(
            nc=self.nc,
            strides=self.stride.tolist(),
            reg_max=self.head.reg_max,
            topk=topk,
            topk2=topk2,
            class_weights=self.class_weights,
            **gains,
        )

    # --- weights ---------------------------------------------------------------------------------------------------

    def class_keys(self) -> frozenset[str]:
        """Return the keys of the last convolutions of the class branches."""
        last = len(self.model) - 1
        finals = (f"model.{last}.{b}.{i}.2." for b in ("cv3", "one2one_cv3") for i in range(self.head.nl))
        return frozenset(f"{prefix}{end}" for prefix in finals for end in ("weight", "bias"))

    def adapt(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Rebuild a class branch at the source's hidden width, which depends on the number of classes (spec C.8)."""
        self._adopt_class_width(state)
        return state

    def _adopt_class_width(self, state: Mapping[str, Tensor]) -> None:
        """Rebuild the class branches when the source's differ in nothing but hidden width."""
        branch = "cv3" if self.head.cv3 is not None else "one2one_cv3"
        prefix = f"model.{len(self.model) - 1}.{branch}"
        own = self.state_dict()
        widths = {}
        for level in range(self.head.nl):
            depthwise, pointwise = f"{prefix}.{level}.0.0.conv.weight", f"{prefix}.{level}.0.1.conv.weight"
            fits = all(k in state and k in own for k in (depthwise, pointwise))
            if not fits or state[depthwise].shape != own[depthwise].shape:
                return
            widths[level] = (state[pointwise].shape[0], own[pointwise].shape[0])
        theirs, ours = {w for w, _ in widths.values()}, {w for _, w in widths.values()}
        if len(theirs) == 1 and theirs != ours:
            self.head.rebuild_class_branches(theirs.pop())

    def fuse(self) -> Self:
        """Prepare for inference: fold normalisations into convolutions and drop the unused branch. Returns itself."""
        self.head.drop_unused_branch()
        return super().fuse()
