"""`Detector`: what every model does beyond its layers: names, loss, weights, fusing, counting.

Legend: ``B`` images, ``k`` detections of an image.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from eyas.models.lineage import Ancestors, descent
from eyas.models.published import Published, model_of
from eyas.models.table import ModelTableError, Table, Tables, called, read_table, shown
from eyas.models.weights import as_source, check_numbers, class_rows, copy_state
from eyas.nn import Conv, Fusable
from eyas.nn.conv_norm import ConvNorm, is_norm
from eyas.nn.recomputed import Recomputed
from eyas.types import CLASSES

LOGGER = logging.getLogger("eyas")
HEAD_SETTINGS = ("max_det", "agnostic_nms", "end2end")


class Detector(nn.Module):
    """A detector: images in, boxes out, and a loss on request. Base of all models.

    A family implements `builds`, `checked`, `build`, `predict`, `init_criterion`, `sections`, `class_keys`, ``head``
    and ``end2end``, and says with the attributes of its classes what there is to know before any model is built.

    Args:
        cfg: name of a model, path of a YAML table, or the table as a mapping.
        ch: channels of the images.
        nc: classes; None takes the table's.
        names: names of the classes, a list or {index: name}; None gives placeholders "0", "1", ...
        verbose: log a one-line summary.

    Attributes of the class:
        family: name of the family of models it belongs to, see ``eyas.families``; "" for none.
        trained_by, opened_by: what people train and open its models with; for messages.
        stretch: whether images are stretched to the square input; otherwise they keep their aspect.
        side: of the square that every image must be, in pixels; None: any multiples of the stride will do.
        tables: name -> function that returns a fresh table, for the models of this class that have a name.
        arch: ``arch`` of the tables that it builds; "" if those are tables of rows.
        published: name -> weights that its models read by name or from a file; empty if they read none.
        usual: name of the model that files of weights unknown to ``published`` are taken to fit.
        weighted_loss: how an override of `init_criterion` gets a loss with ``class_weights``; for messages.

    Attributes:
        yaml: the table it was built from, plain values, with ``nc`` and ``channels`` filled in.
        nc: classes.
        names: their names by index.
        stride: pixels per cell, a CPU tensor; input sizes are multiples of the largest.
        gains: weights of the losses by name (``box``, ``cls``, ``dfl``); None means those of the criterion.
        args: options of the run it is trained in, for overrides of `init_criterion`; None outside of one.
        class_weights: factors of the classes in the class loss, or None.
        criterion: the loss, made at its first use.
        classes_kept: share of the classes whose rows the latest ``load`` took over; None before the first.
        ancestors: what the weights descend from, oldest first.

    Raises:
        UnknownModelError, ModelTableError: the table cannot be found or built.
    """

    family: ClassVar[str] = ""
    trained_by: ClassVar[str] = "DetectionTrainer"
    opened_by: ClassVar[str] = "YOLO"
    stretch: ClassVar[bool] = False
    side: ClassVar[int | None] = None
    tables: ClassVar[Tables] = {}
    arch: ClassVar[str] = ""
    published: ClassVar[Mapping[str, Published]] = {}
    usual: ClassVar[str] = ""
    weighted_loss: ClassVar[str] = "super().init_criterion()"
    stride: Tensor

    def __init__(
        self,
        cfg: str | Path | Mapping[str, Any],
        ch: int = 3,
        nc: int | None = None,
        names: Mapping[int, str] | list[str] | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__()
        table = self.checked(*read_table(cfg, self.tables, type(self).__name__))
        table["channels"] = ch
        if nc is not None:
            table["nc"] = int(nc)
        if type(table["nc"]) is not int or not 1 <= table["nc"] <= CLASSES:
            raise ModelTableError(
                f"{called(table)}: nc is {shown(table['nc'])}, and must be a whole number from 1 to {CLASSES:,}"
            )
        self.yaml = table
        self.nc: int = table["nc"]
        self.names = class_names(names, self.nc)
        self.gains: dict[str, float] | None = None
        self.args: Any = None
        self.class_weights: Any = None
        self.criterion: Any = None
        self.remapped: bool | None = None
        self.classes_kept: float | None = None
        self.ancestors: Ancestors = ()
        self.inplace = False
        try:
            self.build(table)
        except ModelTableError:
            raise
        except ValueError as error:
            raise ModelTableError(f"{called(table)}: {error}") from error
        if verbose:
            self.info()

    # --- what a family says -----------------------------------------------------------------------------------------

    @classmethod
    def builds(cls, table: Mapping[str, Any]) -> bool:
        """Whether this class builds a table, which need not be a sound one; others are asked if not."""
        return bool(cls.arch) and table.get("arch") == cls.arch

    @classmethod
    def checked(cls, table: Table, where: str) -> Table:
        """Return a table with what every table has: ``nc``, ``yaml_file`` and the defaults of this class filled in.

        Raises:
            ModelTableError: it is none of this class; the message begins with ``where`` the table is from.
        """
        raise NotImplementedError

    def build(self, table: Mapping[str, Any]) -> None:
        """Make the layers, with random weights, and set ``stride``."""
        raise NotImplementedError

    def predict(self, x: Tensor) -> Any:
        """Return predictions for images (B, ch, H, W) with values in [0, 1].

        In evaluation a tuple whose first part are detections; while training what the criterion takes.
        """
        raise NotImplementedError

    def init_criterion(self) -> Any:
        """Return the loss of this model, with its ``gains`` and ``class_weights``; override to change it."""
        raise NotImplementedError

    def fit_criterion(self) -> None:
        """Make ``criterion`` serve all that this model predicts, where it was made for a part of it."""

    def sections(self) -> dict[str, tuple[str, ...]]:
        """Return the model's parts in order: name -> prefixes of the parameter names in it.

        ``backbone`` (and, inside it, ``backbone.p1`` ... by the size of a cell, 2**k pixels), ``neck``, ``head``, and
        inside the head ``head.box`` and ``head.cls``. Every parameter is in exactly one of backbone, neck and head.
        """
        raise NotImplementedError

    def class_keys(self) -> frozenset[str]:
        """Return keys of the state dict whose tensors have one row for each class."""
        raise NotImplementedError

    def compiled_parts(self) -> tuple[nn.Module, ...]:
        """Return the modules that `torch.compile` takes as wholes: tensors in, tensors out, of sizes that repeat."""
        return ()

    def compiled_layers(self) -> tuple[nn.Module, ...]:
        """Return layers of one kind, compiled once for all of them and for any length of their inputs."""
        return ()

    def deepest(self) -> nn.Module:
        """Return the module that makes the map (B, C, h, w) of the fewest cells before the head: what teachers teach.

        Raises:
            ValueError: this model does not say which.
        """
        raise ValueError(f"{type(self).__name__} does not say which of its maps a teacher may teach (deepest)")

    def start_outputs(self, imgsz: int) -> None:
        """Start fresh outputs for images of ``imgsz`` px, where their size makes a difference to this model."""

    def faster_parts(self) -> tuple[str, ...]:
        """Return prefixes of parameters that MuSGD lets learn faster."""
        return ()

    @property
    def head(self) -> Any:
        """The part that turns maps into predictions; it has ``max_det`` and ``agnostic_nms``."""
        raise NotImplementedError

    @property
    def end2end(self) -> bool:
        """Whether results need no NMS."""
        raise NotImplementedError

    @end2end.setter
    def end2end(self, value: bool) -> None:
        raise NotImplementedError

    # --- forward and loss -------------------------------------------------------------------------------------------

    def forward(self, x: Tensor | Mapping[str, Any]) -> Any:
        """Return the loss of a batch, or `predict` for images (B, ch, H, W) with values in [0, 1]."""
        if isinstance(x, Mapping):
            return self.loss(x)
        return self.predict(x)

    def predict_batch(self, batch: Mapping[str, Any]) -> Any:
        """Return the predictions that the loss needs; a family whose training sees the objects overrides this."""
        return self.predict(batch["img"])

    def loss(self, batch: Mapping[str, Any], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector and detached items by name.

        ``preds`` are this model's predictions for ``batch["img"]``; None computes them.
        """
        if self.criterion is None:
            self.criterion = self.init_criterion()
            self.fit_criterion()
        return self.criterion(self.predict_batch(batch) if preds is None else preds, batch)

    def in_pixels(self, y: Tensor, height: int, width: int) -> Tensor:
        """Return detections of `predict` in pixels of an input of ``height`` x ``width``."""
        return y

    # --- weights ----------------------------------------------------------------------------------------------------

    def adapt(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a foreign state under this model's names; may also change the model's layers to fit it."""
        return state

    def load(
        self,
        weights: nn.Module | Mapping[str, Any],
        verbose: bool = True,
        remap: bool = True,
        accepted: Collection[str] = (),
    ) -> int:
        """Copy what fits from a model, a state dict, or a checkpoint; return how many tensors were copied.

        With ``remap``, rows of the class outputs follow the class names when both sides have real ones. ``accepted``
        names licences of published weights that are agreed to.

        Raises:
            ValueError: ``weights`` holds no tensors, or is the name or path of weights for another layout.
            CheckpointError: a tensor in it is not of the kind that the model has, or is nan or infinite.
        """
        if isinstance(weights, str | Path):
            raise does_not_fit(weights, self.yaml)
        source = as_source(weights)
        state = self.adapt(source.state)
        target = self.state_dict()
        check_numbers(state, target)
        rows = class_rows(source.names, self.names) if remap else None
        first = next((k for k, v in target.items() if v.ndim == 4), "")
        copied = copy_state(target, state, class_keys=self.class_keys(), rows=rows, first_conv=first)
        self.remapped = remap
        self.ancestors = weights.ancestors if isinstance(weights, Detector) else descent(weights)
        known = 1.0 if rows is None else len(rows) / self.nc
        self.classes_kept = known if self.class_keys() & set(copied) else 0.0
        if verbose:
            LOGGER.info("Loaded %d of %d tensors from the given weights", len(copied), len(target))
        return len(copied)

    @classmethod
    def model_for(cls, weights: str | Path) -> str:
        """Return the name of the model that published weights fit, known by their name or file; else the usual one."""
        return model_of(weights, cls.published) or cls.usual

    @classmethod
    def recognised(cls, state: Mapping[str, Tensor]) -> str:
        """Return the name of the model of this class whose tensors these of a file of others are; "" if none is."""
        return ""

    @classmethod
    def call_to_load(cls, weights: str | Path) -> str:
        """Return what to write to load published weights of this class, by name or from a file."""
        return f"{cls.opened_by}({cls.model_for(weights)!r}).load({str(weights)!r})"

    @classmethod
    def with_backbone(cls, table: Table, name: str) -> Table:
        """Return a table with another backbone.

        Raises:
            ValueError: models of this table keep theirs, or there is no such backbone.
        """
        raise ValueError(
            f"backbone={name}: {called(table)} is a list of layers, whose backbone is a part of the list. Models that "
            "take another backbone are, for example, rtdetr-r50 and rtdetrv2-r18."
        )

    def load_backbone(self, weights: str | Path | Mapping[str, Any], accepted: Collection[str] = ()) -> None:
        """Fill the backbone alone with pre-trained weights, and remember what they are.

        Args:
            weights: the name or the file of published ones, or what such a file holds.
            accepted: names of licences that are agreed to, see `eyas.models.licences`.

        Raises:
            ValueError: they do not fit, or this model's backbone takes none.
            LicenceError: their licence asks for a consent that nobody has given.
        """
        raise ValueError(
            f"backbone_weights={weights}: {called(self.yaml)} takes no weights for its backbone alone: give a whole "
            "checkpoint, pretrained=..."
        )

    def save_memory(self) -> None:
        """Compute again what gradients need and can be had from less, instead of keeping it.

        Of YOLO26 that is what each SiLU was given; of other families all inside blocks of backbone, neck and decoder.

        Raises:
            ValueError: nothing in this model can.
        """
        layers = self.recomputing_layers()
        if not layers:
            raise ValueError(
                f"gradient_checkpointing=True: {called(self.yaml)} has no layers that can compute again what "
                "their gradient needs. Leave it out."
            )
        for layer in layers:
            layer.saves_memory = True

    def saves_memory(self) -> bool:
        """Whether `save_memory` was asked for, and the layers are still those that were told."""
        return any(layer.saves_memory for layer in self.recomputing_layers())

    def recomputing_layers(self) -> list[Recomputed | Conv | ConvNorm]:
        """Return blocks that can run again and, outside of them, layers that can compute again what SiLU was given."""
        blocks = [module for module in self.modules() if isinstance(module, Recomputed)]
        inside = {module for block in blocks for module in block.modules()}
        layers = (m for m in self.modules() if isinstance(m, Conv | ConvNorm) and m not in inside)
        return [*blocks, *(layer for layer in layers if isinstance(layer.act, nn.SiLU))]

    def effects(self) -> dict[str, object]:
        """Return whether it saves memory and how it took over weights, by option; of weights nothing if it has none."""
        told: dict[str, object] = {"gradient_checkpointing": self.saves_memory()}
        if self.remapped is not None:
            told["cls_remap"] = self.remapped
        agreed = [link.licence for link in self.ancestors if link.consent]
        return told | ({"accept_licences": agreed} if agreed else {})

    # --- inference --------------------------------------------------------------------------------------------------

    def set_head_attr(self, **settings: Any) -> None:
        """Set ``max_det``, ``agnostic_nms`` or ``end2end`` of the head.

        Raises:
            ValueError: the head has no such setting, or no such value of it.
        """
        for name, value in settings.items():
            if name not in HEAD_SETTINGS:
                raise ValueError(f"the head has no setting {name!r}: it has {', '.join(HEAD_SETTINGS)}")
            if name == "end2end":
                self.end2end = value
            else:
                setattr(self.head, name, value)

    def fuse(self) -> Self:
        """Prepare for inference: fold normalisations into convolutions. Returns itself."""
        for m in list(self.modules()):
            if isinstance(m, Fusable):
                m.fuse()
        return self

    def is_fused(self) -> bool:
        """Whether no normalisation is left to fold."""
        return not any(is_norm(m) for m in self.modules())

    def info(self, imgsz: int | None = None) -> dict[str, float]:
        """Log and return layers, parameters, parameters with gradient, and GFLOPs when ``imgsz`` (pixels) is given."""
        facts: dict[str, float] = {
            "layers": sum(1 for m in self.modules() if not list(m.children())),
            "parameters": sum(p.numel() for p in self.parameters()),
            "gradients": sum(p.numel() for p in self.parameters() if p.requires_grad),
        }
        text = f"{facts['layers']:,} layers, {facts['parameters']:,} parameters, {facts['gradients']:,} with gradient"
        if imgsz is not None:
            facts["gflops"] = self.flops(imgsz) / 1e9
            text += f", {facts['gflops']:.1f} GFLOPs at {imgsz} px"
        LOGGER.info("%s: %s", Path(self.yaml["yaml_file"]).stem or "model", text)
        return facts

    def flops(self, imgsz: int) -> int:
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


def class_names(names: Mapping[int, str] | list[str] | None, nc: int) -> dict[int, str]:
    """Return names by index, "0", "1", ... without any.

    Raises:
        ValueError: not one name for each of ``nc`` classes.
    """
    if names is None:
        return {i: str(i) for i in range(nc)}
    named = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
    if sorted(named) != list(range(nc)):
        raise ValueError(f"names has {len(named)} entries for {nc} classes: number them from 0 to {nc - 1}")
    return {i: str(named[i]) for i in range(nc)}


def does_not_fit(weights: str | Path, table: Table, reader: type[Detector] | None = None) -> ValueError:
    """Return the error that the model of a table reads no weights of this name or file; ``reader`` is who does."""
    name = Path(table["yaml_file"]).stem or "this model"
    way = f"; write {reader.call_to_load(weights)}" if reader else ""
    return ValueError(
        f"{weights} does not fit {name}: published weights and .pth files are for the official models{way}. "
        "A checkpoint (.pt) goes to load() of YOLO or RTDETR, or to pretrained=."
    )
