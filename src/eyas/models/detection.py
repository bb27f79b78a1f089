"""`DetectionModel`: a trunk built from a table, and a detection head (spec core A.7, C).

Legend: ``B`` images, ``A`` anchors, ``C`` classes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eyas.losses import DenseCriterion, EndToEndCriterion
from eyas.models.catalog import model_table
from eyas.models.graph import ModelTableError, Scale, build_graph
from eyas.models.heads import BN_EPS, BN_MOMENTUM, Detect
from eyas.models.weights import as_source, class_rows, copy_state
from eyas.models.yolo26 import C3K_EVERYWHERE
from eyas.nn import Conv

LOGGER = logging.getLogger("eyas")
PROBE_SIZE = 256  # pixels of the image that is sent through a new model to learn its strides
HEAD_SETTINGS = ("max_det", "agnostic_nms", "end2end")


class DetectionModel(nn.Module):
    """A detector: images in, boxes out, and a loss on request.

    Args:
        cfg: name of a model ("yolo26n", "yolo26n.yaml"), path of a YAML table, or the table as a mapping.
        ch: channels of the images.
        nc: classes; None takes the table's.
        names: names of the classes, a list or {index: name}; None gives placeholders "0", "1", ...
        verbose: log a one-line summary.

    Attributes:
        yaml: the table it was built from, with ``nc`` and ``channels`` filled in.
        model: the layers in order; the last is the head.
        save: indices of layers whose outputs later layers need.
        stride: pixels per cell of each level, a CPU tensor.
        args: options of the run it is trained in (``box``, ``cls``, ``dfl`` are read); None means the defaults.
        class_weights: factors of the classes in the class loss, or None.
        criterion: the loss, made at its first use.

    Raises:
        UnknownModelError, ModelTableError: the table cannot be found or built.
    """

    def __init__(
        self,
        cfg: str | Path | Mapping[str, Any] = "yolo26n.yaml",
        ch: int = 3,
        nc: int | None = None,
        names: Mapping[int, str] | list[str] | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__()
        table = model_table(cfg)
        table["channels"] = ch
        if nc is not None:
            table["nc"] = int(nc)
        self.yaml = table
        self.nc: int = table["nc"]
        self.args: Any = None
        self.class_weights: Any = None
        self.criterion: Any = None
        self.inplace = False
        graph = build_graph(
            [*table["backbone"], *table["head"]],
            ch=ch,
            nc=self.nc,
            scale=_scale(table),
            reg_max=table["reg_max"],
            end2end=table["end2end"],
        )
        if not isinstance(graph.layers[-1], Detect):
            raise ModelTableError("the last row of a detection model's table must be Detect")
        self.model = nn.Sequential(*graph.layers)
        self.sources = graph.sources
        self.save = list(graph.save)
        self.names = _class_names(names, self.nc)
        for m in self.modules():
            if type(m) is nn.BatchNorm2d:
                m.eps, m.momentum = BN_EPS, BN_MOMENTUM
        self._reductions = self._probe(ch)
        self.head.stride = torch.tensor([float(self._reductions[j]) for j in self.sources[-1]], device="cpu")
        self.stride = self.head.stride
        self.head.init_biases()
        if verbose:
            self.info()

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
        self.head.end2end = bool(value)

    def sections(self) -> dict[str, tuple[str, ...]]:
        """Return the model's parts in order: name -> prefixes of the parameter names in it.

        ``backbone`` (and, inside it, ``backbone.p1`` ... by the size of a cell, 2**k pixels), ``neck``, ``head``, and
        inside the head ``head.box`` and ``head.cls``. Every parameter is in exactly one of backbone, neck and head.
        """
        depth, last = len(self.yaml["backbone"]), len(self.model) - 1
        parts = {"backbone": _prefixes(range(depth))}
        for i in range(depth):
            level = f"backbone.p{max(self._reductions[i].bit_length() - 1, 0)}"
            parts[level] = (*parts.get(level, ()), f"model.{i}.")
        parts["neck"] = _prefixes(range(depth, last))
        parts["head"] = _prefixes([last])
        parts["head.box"] = tuple(f"model.{last}.{b}." for b in ("cv2", "one2one_cv2", "dfl"))
        parts["head.cls"] = tuple(f"model.{last}.{b}." for b in ("cv3", "one2one_cv3"))
        return parts

    # --- forward ---------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor | Mapping[str, Any]) -> Any:
        """Return the loss of a batch, or predictions for images (B, ch, H, W) with values in [0, 1].

        Training: {"one2many": raw, "one2one": raw}, raw = {"boxes" (B, 4 reg_max, A), "scores" (B, C, A), "feats"}.
        Evaluation: (detections, that): (B, k, 6) x1 y1 x2 y2 in pixels, score, class; with ``end2end`` off
        (B, 4 + C, A) cx cy w h in pixels and scores in [0, 1], which still need NMS.
        """
        if isinstance(x, Mapping):
            return self.loss(x)
        return self.predict(x)

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
        if self.criterion is None:
            self.criterion = self.init_criterion()
        return self.criterion(self.predict(batch["img"]) if preds is None else preds, batch)

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

    def load(self, weights: nn.Module | Mapping[str, Any], verbose: bool = True, remap: bool = True) -> int:
        """Copy what fits from a model, a state dict, or a checkpoint; return how many tensors were copied.

        A class branch of another hidden width (it depends on the number of classes) is rebuilt at the source's width.
        With ``remap``, rows of the class outputs follow the class names when both sides have real ones.

        Raises:
            ValueError: ``weights`` holds no tensors.
        """
        source = as_source(weights)
        self._adopt_class_width(source.state)
        target = self.state_dict()
        last = len(self.model) - 1
        finals = (f"model.{last}.{b}.{i}.2." for b in ("cv3", "one2one_cv3") for i in range(self.head.nl))
        class_keys = frozenset(f"{prefix}{end}" for prefix in finals for end in ("weight", "bias"))
        rows = class_rows(source.names, self.names) if remap else None
        first = next((k for k, v in target.items() if v.ndim == 4), "")
        copied = copy_state(target, source.state, class_keys=class_keys, rows=rows, first_conv=first)
        if verbose:
            LOGGER.info("Loaded %d of %d tensors from the given weights", len(copied), len(target))
        return len(copied)

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

    # --- inference -------------------------------------------------------------------------------------------------

    def set_head_attr(self, **settings: Any) -> None:
        """Set ``max_det``, ``agnostic_nms`` or ``end2end`` of the head.

        Raises:
            ValueError: the head has no such setting.
        """
        for name, value in settings.items():
            if name not in HEAD_SETTINGS:
                raise ValueError(f"the head has no setting {name!r}: it has {', '.join(HEAD_SETTINGS)}")
            if name == "end2end":
                self.end2end = value
            else:
                setattr(self.head, name, value)

    def fuse(self) -> DetectionModel:
        """Prepare for inference: fold normalisations into convolutions and drop the unused branch. Returns itself."""
        self.head.drop_unused_branch()
        for m in self.modules():
            if isinstance(m, Conv):
                m.fuse()
        return self

    def is_fused(self) -> bool:
        """Whether no normalisation is left to fold."""
        return not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.modules())

    def info(self, imgsz: int | None = None) -> dict[str, float]:
        """Log and return layers, parameters, parameters with gradient, and GFLOPs when ``imgsz`` (pixels) is given."""
        facts: dict[str, float] = {
            "layers": sum(1 for m in self.modules() if not list(m.children())),
            "parameters": sum(p.numel() for p in self.parameters()),
            "gradients": sum(p.numel() for p in self.parameters() if p.requires_grad),
        }
        text = f"{facts['layers']:,} layers, {facts['parameters']:,} parameters, {facts['gradients']:,} with gradient"
        if imgsz is not None:
            facts["gflops"] = self._flops(imgsz) / 1e9
            text += f", {facts['gflops']:.1f} GFLOPs at {imgsz} px"
        LOGGER.info("%s: %s", Path(self.yaml["yaml_file"]).stem or "model", text)
        return facts

    def _flops(self, imgsz: int) -> int:
        """Count the operations of one image's forward pass on shapes alone; nothing is computed."""
        from torch.utils.flop_counter import FlopCounterMode

        meta = {k: torch.empty_like(v, device="meta") for k, v in self.state_dict().items()}
        training = self.training
        self.eval()
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            image = torch.empty(1, self.yaml["channels"], imgsz, imgsz, device="meta")
            torch.func.functional_call(self, meta, (image,))
        self.train(training)
        return counter.get_total_flops()


def _scale(table: Mapping[str, Any]) -> Scale:
    scales = table.get("scales")
    if not scales:
        return Scale(float(table.get("depth_multiple", 1.0)), float(table.get("width_multiple", 1.0)))
    letter = table["scale"]
    depth, width, most = scales[letter]
    return Scale(float(depth), float(width), most, c3k_everywhere=letter in C3K_EVERYWHERE)


def _class_names(names: Mapping[int, str] | list[str] | None, nc: int) -> dict[int, str]:
    if names is None:
        return {i: str(i) for i in range(nc)}
    named = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
    if sorted(named) != list(range(nc)):
        raise ValueError(f"names has {len(named)} entries for {nc} classes: number them from 0 to {nc - 1}")
    return {i: str(named[i]) for i in range(nc)}


def _prefixes(layers: Any) -> tuple[str, ...]:
    return tuple(f"model.{i}." for i in layers)
