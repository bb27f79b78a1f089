"""`DEIMv2Net` and `ECDetNet`: small backbones under the idea of boxes that D-FINE has (spec detr 4, detr-more 8)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from eyas.losses import FineCriterion, LateCriterion, SetCriterion
from eyas.models.backbones import Backbone, HGNetV2
from eyas.models.backbones.hgnetv2 import CUT
from eyas.models.backbones.tuned import TUNED, tuned_backbone
from eyas.models.backbones.vit_keys import DINOV3_LICENCE
from eyas.models.deim.model import DEIMFineNet
from eyas.models.deim.v2_decoder import DirectDecoder, LiteDecoder, RootDecoder
from eyas.models.deim.v2_keys import LAST_NORM, REPEATED, v2_names
from eyas.models.deim.v2_published import DEIMV2_SOURCE, DINOV3_SIZES, ECDET
from eyas.models.deim.v2_variants import (
    EC_ARCH,
    EC_TABLES,
    EC_VARIANTS,
    V2_ARCH,
    V2_TABLES,
    VARIANTS,
    Variant,
    checked_ec,
    checked_v2,
)
from eyas.models.encoders import HybridEncoder, LiteEncoder, SmallSumEncoder, SumEncoder
from eyas.models.lineage import Ancestor
from eyas.models.published import Published
from eyas.models.rtdetr.base import SetDetector
from eyas.models.rtdetr.variants import build_backbone
from eyas.models.table import Table, Tables


class DEIMv2Net(DEIMFineNet):
    """Backbone, encoder that adds maps, and a decoder of few parameters: images in, a set of boxes out.

    Tensors of the authors' files are renamed where convolution and normalisation are one module here. Arguments are
    those of `DFineNet`; names are "deimv2-atto" to "deimv2-x".
    """

    spoken: ClassVar[str] = "DEIMv2"
    arch: ClassVar[str] = V2_ARCH
    tables: ClassVar[Tables] = V2_TABLES
    usual: ClassVar[str] = "deimv2-s"
    taught_by: ClassVar[type[FineCriterion]] = LateCriterion
    weighted_loss: ClassVar[str] = "super().init_criterion() or LateCriterion(..., class_weights=self.class_weights)"
    check: ClassVar[Callable[[Mapping[str, Any]], Table]] = staticmethod(checked_v2)
    from_dinov3: ClassVar[tuple[str, ...]] = DINOV3_SIZES
    sizes: Variant

    @staticmethod
    def sizes_of(variant: str) -> Variant:
        """Return the sizes of a member."""
        return VARIANTS[variant]

    def make_backbone(self, table: Mapping[str, Any]) -> Backbone:
        """Return the backbone, and say which of its levels the encoder takes."""
        own, ch = self.sizes.backbone, table["channels"]
        if table["backbone"] is None and own in TUNED:
            backbone: Backbone = tuned_backbone(own, ch)
        elif table["backbone"] is None and own in CUT:
            backbone = HGNetV2(own, ch)
        else:
            backbone = build_backbone(table["backbone"] or own, ch)
        self.levels = ("p4",) if self.sizes.lite else tuple(backbone.levels)[-len(self.sizes.points) :]
        return backbone

    def make_encoder(self) -> HybridEncoder | LiteEncoder:
        """Return the encoder of the backbone's levels."""
        if self.sizes.lite:
            return LiteEncoder(self.channels()[0], **self.inner_sizes())
        kind = SmallSumEncoder if self.sizes.small else SumEncoder
        return kind(self.channels(), **self.inner_sizes(), ffn=self.sizes.ffn)

    def decoder_class(self) -> type[DirectDecoder]:
        """Return what the decoder is."""
        return LiteDecoder if self.sizes.lite else RootDecoder

    def deepest(self) -> nn.Module:
        """Return what makes the smallest map before maps are mixed."""
        return self.get_submodule("encoder.bi_fusion") if self.sizes.lite else super().deepest()

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of the losses that come as values alone."""
        return SetDetector.loss_names.__get__(self) if self.sizes.lite else super().loss_names

    def init_criterion(self) -> SetCriterion:
        """Return the loss of this model; override to change it. Of its gains ``box`` is GIoU's, ``dfl`` that of L1."""
        return self.taught_by(scale=self.sizes.scale, local=not self.sizes.lite, **self.criterion_settings())

    @classmethod
    def agreed(cls, known: Ancestor, table: Table, accepted: Collection[str] = ()) -> Ancestor:
        """Return what is known of weights; a file for a size that begins with DINOv3 is under its licence.

        Raises:
            LicenceError: nobody has agreed to that.
        """
        if not known.licence and table["variant"] in cls.from_dinov3 and table["backbone"] is None:
            known = replace(known, licence=DINOV3_LICENCE, source=DEIMV2_SOURCE)
        return super().agreed(known, table, accepted)

    def adapt(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the state of a file of DEIMv2, or of a backbone alone, under this model's names."""
        ours = v2_names(super().adapt(state))
        return {k: v for k, v in ours.items() if not REPEATED.match(k)} if self.sizes.lite else ours


class ECDetNet(DEIMv2Net):
    """`DEIMv2Net` with stems of convolutions for patches, and D-FINE's decoder layers; names are "ecdet-s" to "-x"."""

    spoken: ClassVar[str] = "ECDet"
    arch: ClassVar[str] = EC_ARCH
    tables: ClassVar[Tables] = EC_TABLES
    published: ClassVar[Mapping[str, Published]] = ECDET
    usual: ClassVar[str] = "ecdet-s"
    taught_by: ClassVar[type[FineCriterion]] = FineCriterion  # its authors change no matcher (spec detr-more 8)
    weighted_loss: ClassVar[str] = DEIMFineNet.weighted_loss
    check: ClassVar[Callable[[Mapping[str, Any]], Table]] = staticmethod(checked_ec)
    from_dinov3: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def sizes_of(variant: str) -> Variant:
        """Return the sizes of a member."""
        return EC_VARIANTS[variant]

    def decoder_class(self) -> type[DirectDecoder]:
        """Return what the decoder is."""
        return DirectDecoder

    def adapt(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the state of a file of ECDet, or of a backbone alone, under this model's names."""
        return {LAST_NORM.sub(r"\1.norm3.", key): value for key, value in super().adapt(state).items()}
