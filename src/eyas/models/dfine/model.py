"""`DFineNet`: D-FINE in the layout of its authors (spec detr 2), whose published weights load by a table of renames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from eyas.losses import SetCriterion
from eyas.losses.fine import FineCriterion
from eyas.models.dfine.decoder import DFineDecoder
from eyas.models.dfine.published import PUBLISHED
from eyas.models.dfine.variants import ARCH, TABLES, VARIANTS, checked_table
from eyas.models.encoders import ELANEncoder
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

    def build(self, table: Mapping[str, Any]) -> None:
        """Make backbone, encoder and decoder."""
        sizes = VARIANTS[table["variant"]]
        self.backbone = build_backbone(table["backbone"] or sizes.backbone, table["channels"])
        self.levels = tuple(self.backbone.levels)[-len(sizes.points) :]
        if table["frozen_norms"]:
            freeze_norms(self.backbone)
        if table["freeze_stem"]:
            self.backbone.freeze_stem()
        self.encoder = ELANEncoder(
            [self.backbone.levels[level].channels for level in self.levels],
            hidden=sizes.hidden,
            ffn=sizes.ffn,
            expansion=sizes.expansion,
            depth_mult=sizes.depth_mult,
        )
        self.decoder = DFineDecoder(
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
            names=OFFICIAL,
        )
        init_feed_forward(self.decoder)
        self.stride = torch.tensor([STRIDE], device="cpu")

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
        scale = VARIANTS[self.yaml["variant"]].scale
        return FineCriterion(scale=scale, **self.criterion_settings())
