"""`DetectionModel`: a trunk built from a table, and a detection head (spec core A.7, C).

Legend: ``B`` images, ``A`` anchors, ``C`` classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from eyas.losses import DenseCriterion, EndToEndCriterion
from eyas.models.detector import Detector
from eyas.models.graph import ModelTableError, Scale, build_graph
from eyas.models.heads import BN_EPS, BN_MOMENTUM, Detect
from eyas.models.yolo26 import C3K_EVERYWHERE

PROBE_SIZE = 256  # pixels of the image that is sent through a new model to learn its strides


class DetectionModel(Detector):
    """A detector built from a table of numbered layers, whose last is `Detect`; see `Detector` for what all share.

    Attributes:
        model: the layers in order; the last is the head.
        save: indices of layers whose outputs later layers need.
        stride: pixels per cell of each level, a CPU tensor.
    """

    head_class: ClassVar[type[nn.Module]] = Detect

    def __init__(
        self,
        cfg: str | Path | Mapping[str, Any] = "yolo26n.yaml",
        ch: int = 3,
        nc: int | None = None,
        names: Mapping[int, str] | list[str] | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(cfg, ch, nc, names, verbose)

    def build(self, table: Mapping[str, Any]) -> None:
        """Make the layers of the table, and learn their strides."""
        if "backbone" not in table:
            raise ModelTableError(f"{table['yaml_file']} is no table of layers: build it with build_detector()")
        ch = table["channels"]
        graph = build_graph(
            [*table["backbone"], *table["head"]],
            ch=ch,
            nc=self.nc,
            scale=_scale(table),
            reg_max=table.get("reg_max", 1),
            end2end=table["end2end"],
        )
        self._check_head(graph.layers[-1])
        self.model = nn.Sequential(*graph.layers)
        self.sources = graph.sources
        self.save = list(graph.save)
        for m in self.modules():
            if type(m) is nn.BatchNorm2d:
                m.eps, m.momentum = BN_EPS, BN_MOMENTUM
        self._reductions = self._probe(ch)
        self._start_head()

    def _check_head(self, head: nn.Module) -> None:
        if not isinstance(head, self.head_class):
            raise ModelTableError(
                f"the last row of a {type(self).__name__}'s table must be {self.head_class.__name__}, not "
                f"{type(head).__name__}: build_detector() finds the class for a table"
            )

    def _start_head(self) -> None:
        """Tell the head its strides, and set its biases."""
        self.head.stride = torch.tensor([float(self._reductions[j]) for j in self.sources[-1]], device="cpu")
        self.stride = self.head.stride
        self.head.init_biases()

    # --- parts -----------------------------------------------------------------------------------------------------

    @property
    def head(self) -> Detect:
        """The detection head, the last layer."""
        return self.model[-1]  # type: ignore[return-value]

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

    def sections(self) -> dict[str, tuple[str, ...]]:
        """Return the model's parts, see `Detector.sections`; the neck is what lies between backbone and last layer."""
        depth, last = len(self.yaml["backbone"]), len(self.model) - 1
        parts = {"backbone": _prefixes(range(depth))}
        for i in range(depth):
            level = f"backbone.p{max(self._reductions[i].bit_length() - 1, 0)}"
            parts[level] = (*parts.get(level, ()), f"model.{i}.")
        parts["neck"] = _prefixes(range(depth, last))
        parts["head"] = _prefixes([last])
        for part, branches in self.head.SECTIONS.items():
            parts[f"head.{part}"] = tuple(f"model.{last}.{branch}." for branch in branches)
        return parts

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
        return self.head(self._head_inputs(x))

    def _head_inputs(self, x: Tensor) -> list[Tensor]:
        outputs: dict[int, Tensor] = {}
        for i, layer in enumerate(islice(self.model, len(self.model) - 1)):
            if i > 0 and self.sources[i] != (i - 1,):
                picked = [x if j == i - 1 else outputs[j] for j in self.sources[i]]
                x = layer(picked if len(picked) > 1 or self.sources[i][0] == i - 1 else picked[0])
            else:
                x = layer(x)
            if i in self.save or i == len(self.model) - 2:
                outputs[i] = x
        return [outputs[j] for j in self.sources[-1]]

    @torch.no_grad()
    def _probe(self, ch: int) -> tuple[int, ...]:
        """Return pixels per cell of every layer before the head, found by sending one blank image through."""
        training = self.training
        heights: list[int] = []
        trunk = islice(self.model, len(self.model) - 1)
        hooks = [m.register_forward_hook(lambda _m, _i, y: heights.append(y.shape[-2])) for m in trunk]
        self.eval()
        self._head_inputs(torch.zeros(1, ch, PROBE_SIZE, PROBE_SIZE, device=next(self.parameters()).device))
        self.train(training)
        for hook in hooks:
            hook.remove()
        return tuple(PROBE_SIZE // h for h in heights)

    # --- loss ------------------------------------------------------------------------------------------------------

    def loss(self, batch: Mapping[str, Any], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector (3,) times B, and detached items {"box_loss", "cls_loss", "l1_loss"}.

        ``preds`` are this model's predictions for ``batch["img"]``; None computes them.
        """
        return super().loss(batch, preds)

    def init_criterion(self) -> Any:
        """Return the loss of this model; override to change it. Gains come from ``args``, 7.5 / 0.5 / 1.5 without."""
        if not self.head.has_one2one:
            return self.dense_criterion(topk=10)
        return EndToEndCriterion(self.dense_criterion(topk=10), self.dense_criterion(topk=7, topk2=1))

    def dense_criterion(self, *, topk: int, topk2: int | None = None) -> DenseCriterion:
        """Return the loss of one branch with this model's classes, strides and gains."""
        gains = {} if self.args is None else {f"{g}_gain": getattr(self.args, g) for g in ("box", "cls", "dfl")}
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


def _scale(table: Mapping[str, Any]) -> Scale:
    scales = table.get("scales")
    if not scales:
        return Scale(float(table.get("depth_multiple", 1.0)), float(table.get("width_multiple", 1.0)))
    letter = table["scale"]
    depth, width, most = scales[letter]
    return Scale(float(depth), float(width), most, c3k_everywhere=letter in C3K_EVERYWHERE)


def _prefixes(layers: Any) -> tuple[str, ...]:
    return tuple(f"model.{i}." for i in layers)
