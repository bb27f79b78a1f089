"""`DFineNet`: D-FINE in the layout of its authors (spec detr 2), whose published weights load by a table of renames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from eyas.losses import SetCriterion
from eyas.losses.fine import FineCriterion
from eyas.models.backbones import Backbone
from eyas.models.dfine.decoder import DFineDecoder
from eyas.models.dfine.published import PUBLISHED
from eyas.models.dfine.variants import ARCH, TABLES, VARIANTS, Variant, checked_table
from eyas.models.encoders import ELANEncoder, HybridEncoder, LiteEncoder
from eyas.models.published import Published
from eyas.models.rtdetr.base import STRIDE
from eyas.models.rtdetr.decoder import OFFICIAL
from eyas.models.rtdetr.official import RTDETRNet, init_feed_forward
from eyas.models.rtdetr.variants import build_backbone
from eyas.models.table import Table, Tables
from eyas.nn.frozen_norm import freeze_norms


class DFineNet(RTDETRNet):
    """Backbone, encoder, and a decoder that refines distributions of edges: images in, a set of boxes out.

    State-dict keys are those of the authors' files but for HGNetv2's, which are RT-DETRv2's, and for two constants,
    ``up`` and ``reg_scale``. Arguments are those of `RTDETRNet`; names are "dfine-n" to "dfine-x".
    """

    family: ClassVar[str] = "dfine"
    spoken: ClassVar[str] = "D-FINE"
    trained_by: ClassVar[str] = "DFineTrainer"
    arch: ClassVar[str] = ARCH
    tables: ClassVar[Tables] = TABLES
    published: ClassVar[Mapping[str, Published]] = PUBLISHED
    usual: ClassVar[str] = "dfine-s"
    weighted_loss: ClassVar[str] = "super().init_criterion() or FineCriterion(..., class_weights=self.class_weights)"
    opened_by: ClassVar[str] = "YOLO"
    check: ClassVar[Callable[[Mapping[str, Any]], Table]] = staticmethod(checked_table)
    sizes: Variant

    def build(self, table: Mapping[str, Any]) -> None:
        """Make backbone, encoder and decoder."""
        self.sizes = sizes = self.sizes_of(table["variant"])
        self.backbone = self.make_backbone(table)
        if table["frozen_norms"]:
            freeze_norms(self.backbone)
        if table["freeze_stem"]:
            self.backbone.freeze_stem()
        self.encoder = self.make_encoder()  # type: ignore[assignment]
        self.decoder = self.decoder_class()(
            self.encoder.channels,
            scale=sizes.scale,
            nc=self.nc,
            hidden=sizes.width,
            queries=table["queries"],
            points=sizes.points,
            layers=sizes.layers,
            ffn=sizes.decoder_ffn,
            num_denoising=table["num_denoising"],
            act=table["act"],
            position_layers=sizes.position_layers,
            names=OFFICIAL,
        )
        init_feed_forward(self.decoder)
        self.stride = torch.tensor([STRIDE], device="cpu")

    @staticmethod
    def sizes_of(variant: str) -> Variant:
        """Return the sizes of a member."""
        return VARIANTS[variant]

    def make_backbone(self, table: Mapping[str, Any]) -> Backbone:
        """Return the backbone, and say which of its levels the encoder takes."""
        backbone = build_backbone(table["backbone"] or self.sizes.backbone, table["channels"])
        self.levels = tuple(backbone.levels)[-len(self.sizes.points) :]
        return backbone

    def make_encoder(self) -> HybridEncoder | LiteEncoder:
        """Return the encoder of the backbone's levels."""
        return ELANEncoder(self.channels(), **self.inner_sizes(), ffn=self.sizes.ffn)

    def channels(self) -> list[int]:
        """Return the channels of the maps that the encoder takes, largest map first."""
        return [self.backbone.levels[level].channels for level in self.levels]

    def inner_sizes(self) -> dict[str, Any]:
        """Return what encoders are made of, whatever they are."""
        return {
            "hidden": self.sizes.hidden,
            "expansion": self.sizes.expansion,
            "depth_mult": self.sizes.depth_mult,
        }

    def decoder_class(self) -> type[DFineDecoder]:
        """Return what the decoder is."""
        return DFineDecoder

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of five losses that come as values alone."""
        return *super().loss_names, "fgl_loss", "ddf_loss"

    def adapt(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the state of a file of D-FINE, or of a backbone alone, under this model's names.

        Raises:
            ValueError: the reach of its box head is another one, so that the same numbers would mean other boxes.
        """
        theirs = state.get("decoder.reg_scale")
        if theirs is not None and float(theirs) != self.decoder.scale:
            raise ValueError(
                f"these are no weights of {self.yaml['variant']}: their reg_scale is {float(theirs):g}, and must be "
                f"{self.decoder.scale:g}."
            )
        return super().adapt(state)

    def init_criterion(self) -> SetCriterion:
        """Return the loss of this model; override to change it. Of its gains ``box`` is GIoU's, ``dfl`` that of L1."""
        return FineCriterion(scale=self.sizes.scale, **self.criterion_settings())
