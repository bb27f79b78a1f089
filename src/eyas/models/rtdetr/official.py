"""RT-DETR v1 and v2 in the layout of their authors (spec detr 1), whose published weights load by a table of renames.

Legend: ``B`` images, ``C`` classes, ``k`` detections.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eyas.models.backbones.host import BackboneHost
from eyas.models.encoders import HybridEncoder
from eyas.models.licences import consent
from eyas.models.lineage import Ancestor, described
from eyas.models.published import Published, located, model_of
from eyas.models.rtdetr.base import STRIDE, SetDetector
from eyas.models.rtdetr.decoder import OFFICIAL, RTDETRDecoder
from eyas.models.rtdetr.keys import rename, without_ignored
from eyas.models.rtdetr.published import PUBLISHED, read_published
from eyas.models.rtdetr.variants import ARCH, VARIANTS, Variant, build_backbone, checked_table
from eyas.models.table import ModelTableError, Table
from eyas.models.weights import as_source, class_rows, plain_state
from eyas.names import a_few
from eyas.nn.frozen_norm import freeze_norms

LOGGER = logging.getLogger("eyas")
LEVELS = ("p3", "p4", "p5")  # of the backbone, that the encoder takes


class RTDETRNet(BackboneHost, SetDetector):
    """Backbone, hybrid encoder and decoder: images in, a set of boxes out.

    State-dict keys are those of RT-DETRv2 files but for ``num_points_scale``, which is computed here.

    Args:
        cfg: name ("rtdetr-r18", "rtdetrv2-r50") or table (`eyas.models.rtdetr.variants.official_table`). Frozen
            normalisation (``frozen_norms``, ``freeze_stem``) belongs to models that start from published weights.
        ch: channels of the images.
        nc: classes; None takes the table's.
        names: names of the classes, a list or {index: name}; None gives placeholders "0", "1", ...
        verbose: log a one-line summary.

    Raises:
        UnknownModelError: there is no such name.
        ModelTableError: the table has a key that means nothing, or names no variant.
    """

    arch: ClassVar[str] = ARCH
    published: ClassVar[Mapping[str, Published]] = PUBLISHED
    usual: ClassVar[str] = "rtdetr-r50"
    variants: ClassVar[Mapping[str, Variant]] = VARIANTS
    check: ClassVar[Callable[[Mapping[str, Any]], Table]] = staticmethod(checked_table)
    levels: tuple[str, ...] = LEVELS

    def __init__(
        self,
        cfg: str | Path | Mapping[str, Any] = "rtdetr-r18",
        ch: int = 3,
        nc: int | None = None,
        names: Mapping[int, str] | list[str] | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(cfg, ch, nc, names, verbose)

    @classmethod
    def checked(cls, table: Table, where: str) -> Table:
        """Return a table of this layout with its defaults filled in.

        Raises:
            ModelTableError: it names no variant, has a key that means nothing, or an impossible number.
        """
        try:
            return cls.check(table)
        except ValueError as error:
            raise ModelTableError(f"{where}: {error}") from error

    def build(self, table: Mapping[str, Any]) -> None:
        """Make backbone, encoder and decoder."""
        sizes = self.variants[table["variant"]]
        self.backbone = build_backbone(table["backbone"] or sizes.backbone, table["channels"])
        if table["frozen_norms"]:
            freeze_norms(self.backbone)
        if table["freeze_stem"]:
            self.backbone.freeze_stem()
        self.encoder = HybridEncoder(
            [self.backbone.levels[level].channels for level in LEVELS],
            hidden=sizes.hidden,
            ffn=sizes.ffn,
            layers=sizes.encoder_layers,
            expansion=sizes.expansion,
        )
        self.decoder = RTDETRDecoder(
            self.encoder.channels,
            nc=self.nc,
            queries=table["queries"],
            layers=sizes.decoder_layers,
            num_denoising=table["num_denoising"],
            eval_layer=table["eval_layer"],
            act=table["act"],
            position_layers=table["position_layers"],
            names=OFFICIAL,
        )
        init_feed_forward(self.decoder)
        self.stride = torch.tensor([STRIDE], device="cpu")

    # --- parts -----------------------------------------------------------------------------------------------------

    @property
    def head(self) -> RTDETRDecoder:
        """The decoder."""
        return self.decoder

    def sections(self) -> dict[str, tuple[str, ...]]:
        """Return the model's parts in order: name -> prefixes of the parameter names in it.

        ``backbone`` and, inside it, ``backbone.p2`` (with the stem) ... ``backbone.p5``, of a transformer
        ``backbone.vit``; ``neck``, the encoder, and a transformer's pyramid; ``head``, the decoder, and inside it
        ``head.box`` and ``head.cls``. Every parameter is in exactly one of backbone, neck and head.
        """
        parts = self.backbone.sections()
        parts |= {"neck": ("encoder.", *self.backbone.new_parts()), "head": ("decoder.",)}
        for kind, modules in self.decoder.SECTIONS.items():
            parts[f"head.{kind}"] = tuple(f"decoder.{module}." for module in modules)
        return parts

    def parameter_levels(self) -> tuple[tuple[str, ...], ...]:
        """Return groups of prefixes from the images upwards, the steps of layer-wise rates.

        Stem, every block of the backbone, and all that comes after it as one step.
        """
        blocks = (tuple(f"backbone.{prefix}" for prefix in block) for block in self.backbone.blocks)
        return (*blocks, ("encoder.", "decoder."))

    def compiled_parts(self) -> tuple[nn.Module, ...]:
        """Return backbone and encoder; the decoder is compiled by layers."""
        return self.backbone, self.encoder

    def deepest(self) -> nn.Module:
        """Return the encoder's attention over the smallest map, before maps are mixed."""
        return self.encoder.encoder[0]

    # --- forward ---------------------------------------------------------------------------------------------------

    def predict(self, x: Tensor, batch: Mapping[str, Any] | None = None) -> Any:
        """Return a `SetPrediction` while training, else (detections (B, k, 6), `SetPrediction`); see `RTDETRDecoder`.

        ``batch`` gives the objects of which denoising queries are made while training.
        """
        maps = self.backbone(x)
        return self.decoder(self.encoder([maps[level] for level in self.levels]), batch)

    # --- weights ---------------------------------------------------------------------------------------------------

    @classmethod
    def model_for(cls, weights: str | Path) -> str:
        """Return the name of the model that weights fit: known by theirs, or by the tensors in their file."""
        known = model_of(weights, cls.published)
        return known or (cls.recognised(read_published(weights)) if Path(weights).is_file() else "") or cls.usual

    @classmethod
    def recognised(cls, state: Mapping[str, Tensor]) -> str:
        """Return the name of the model whose tensors, but for those of classes, these are; "" if there is none.

        Of several models with the same network, it is the first.
        """
        names: dict[str, str] = {}
        for name, table in cls.tables.items():
            if cls.builds(table()):
                names.setdefault(table()["variant"], name)
        for name in names.values():
            with torch.device("meta"):
                model = cls(name, verbose=False)
            if model.is_filled_by(state):
                return name
        return ""

    def is_filled_by(self, state: Mapping[str, Tensor]) -> bool:
        """Whether these are all tensors of this model, and no others, but for the sizes of those of classes."""
        try:
            state = self.adapt(state)
        except ValueError:  # they say themselves that they are of another
            return False
        own, class_keys = self.state_dict(), self.class_keys()
        given = {key: state[key].shape for key in without_ignored(state)}
        shapes = {key: own[key].shape for key in without_ignored(own)}
        # Larger ones have all names of smaller ones, and more.
        return given.keys() == shapes.keys() and all(given[k] == shapes[k] for k in given if k not in class_keys)

    @classmethod
    def agreed(cls, known: Ancestor, table: Table, accepted: Collection[str] = ()) -> Ancestor:
        """Return what is known of weights for the model of a table, with who has agreed to their licence.

        Raises:
            LicenceError: nobody has agreed to a licence that asks for it.
        """
        return replace(known, consent=consent(known.licence, known.name, accepted))

    def adapt(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the state of a file of RT-DETR v1 or v2, or of a backbone alone, under this model's names."""
        return rename(state)

    def load(
        self,
        weights: nn.Module | Mapping[str, Any] | str | Path,
        verbose: bool = True,
        remap: bool = True,
        accepted: Collection[str] = (),
    ) -> int:
        """Copy what fits; return how many tensors were copied. What does not fit is named in a warning.

        Args:
            weights: a model, a state dict, a checkpoint, the path of a file of RT-DETR v1 or v2 or of a backbone, or
                the name of published weights, which are fetched (`eyas.models.rtdetr.published`).
            verbose: log how much was copied.
            remap: let rows of class outputs follow the class names when both sides have real ones.
            accepted: names of licences that are agreed to.

        Raises:
            ValueError: there are no weights in it, or none that fit this model; nothing is changed then.
            LicenceError: their licence asks for a consent that nobody has given.
        """
        found: Any = _unwrapped(weights)
        if isinstance(weights, str | Path):
            path, known = located(weights, self.published)
            found = {"model": read_published(path)} | described((self.agreed(known, self.yaml, accepted),))
        source = as_source(found)
        by_name = remap and class_rows(source.names, self.names) is not None
        self._tell_what_does_not_fit(self.adapt(source.state), classes_follow_names=by_name)
        return super().load(found, verbose, remap)

    def _tell_what_does_not_fit(self, state: Mapping[str, Tensor], classes_follow_names: bool) -> None:
        """Name the tensors that will be left out, and those of a part of the model that will keep their values.

        Raises:
            ValueError: all will be left out.
        """
        own, class_keys = self.state_dict(), self.class_keys()
        given = [key for key in without_ignored(state) if not key.startswith("criterion.")]
        fit = [key for key in given if key in own and own[key].shape == state[key].shape]
        if not fit:
            raise ValueError(
                f"these are no weights of {self.yaml['variant']}: none of their {len(given)} tensors fits "
                f"({a_few(given)})."
            )
        left = [key for key in given if key not in fit]
        if not classes_follow_names and any(key in class_keys for key in left):
            LOGGER.info("Class outputs start afresh: the weights have another number of classes than %d", self.nc)
        if left := [key for key in left if key not in class_keys]:
            LOGGER.warning("Warning: %d tensors of the weights do not fit: %s", len(left), a_few(left))
        parts = {key.split(".", 1)[0] for key in fit}
        if missing := [k for k in without_ignored(own) if k not in state and k.split(".", 1)[0] in parts]:
            LOGGER.warning("Warning: %d tensors are not in the weights: %s", len(missing), a_few(missing))


@torch.no_grad()
def init_feed_forward(decoder: RTDETRDecoder) -> None:
    """Start the networks of the decoder layers from Xavier's values, as v2 does; layers stay copies of the first."""
    layers: list[Any] = list(decoder.decoder.layers)
    for layer in layers:
        for name in layer.thinking:
            linear = layer.get_submodule(name)
            if layer is layers[0]:
                nn.init.xavier_uniform_(linear.weight)
            else:
                linear.weight.copy_(layers[0].get_submodule(name).weight)


def _unwrapped(weights: Any) -> Any:
    """Return a checkpoint of the authors, {"ema": {"module": state}}, in the shape that ours have."""
    if isinstance(weights, Mapping) and isinstance(weights.get("ema"), Mapping) and "module" in weights["ema"]:
        return {"model": plain_state(weights), "names": weights.get("names")}
    return weights
