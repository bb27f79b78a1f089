"""`DINONet`: DINO (Zhang et al., 2022; spec detr 5, detr-more 2), whose published weights load by tables of renames.

Legend: ``B`` images, ``C`` classes, ``k`` detections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eyas.losses import FocalSetCriterion, SetCriterion
from eyas.models.dino.decoder import DINODecoder
from eyas.models.dino.keys import DETREX, ORIGINAL, layout_of, rename
from eyas.models.dino.published import PUBLISHED
from eyas.models.dino.variants import ARCH, TABLES, VARIANTS, checked_table
from eyas.models.encoders import DeformableEncoder
from eyas.models.encoders.padding import frame_of, lines_of_image
from eyas.models.pixels import IMAGENET, per_channel
from eyas.models.published import Published
from eyas.models.rtdetr.base import GAINS, STRIDE
from eyas.models.rtdetr.official import LEVELS, RTDETRNet
from eyas.models.rtdetr.variants import build_backbone
from eyas.models.table import Table, Tables
from eyas.nn.constants import constants
from eyas.nn.frozen_norm import freeze_norms

LAYOUTS = {ORIGINAL: "dino-r50-original", DETREX: "dino-r50"}  # and the model that its files fit


class DINONet(RTDETRNet):
    """Backbone, deformable encoder and decoder: images in, a set of boxes out.

    Images keep their aspect; which part of the input is padding is read off its pixels, and masked
    (`eyas.models.encoders.padding`). Inside, boxes are shares of the image without padding; those that come out are
    shares of the input.

    Arguments are those of `RTDETRNet`; names are in `eyas.models.dino.variants`. "dino-r50" is the network of detrex,
    with outputs of its own for every layer, and "dino-r50-original" that of the authors, whose layers share theirs.
    """

    family: ClassVar[str] = "dino"
    spoken: ClassVar[str] = "DINO"
    trained_by: ClassVar[str] = "DINOTrainer"
    opened_by: ClassVar[str] = "YOLO"
    stretch: ClassVar[bool] = False
    arch: ClassVar[str] = ARCH
    tables: ClassVar[Tables] = TABLES
    published: ClassVar[Mapping[str, Published]] = PUBLISHED
    usual: ClassVar[str] = "dino-r50"
    check: ClassVar[Callable[[Mapping[str, Any]], Table]] = staticmethod(checked_table)
    weighted_loss: ClassVar[str] = (
        "super().init_criterion() or FocalSetCriterion(..., class_weights=self.class_weights)"
    )

    def __init__(
        self,
        cfg: str | Path | Mapping[str, Any] = "dino-r50",
        ch: int = 3,
        nc: int | None = None,
        names: Mapping[int, str] | list[str] | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(cfg, ch, nc, names, verbose)

    def build(self, table: Mapping[str, Any]) -> None:
        """Make backbone, encoder and decoder."""
        sizes = VARIANTS[table["variant"]]
        self.backbone = build_backbone(table["backbone"] or sizes.backbone, table["channels"])
        if table["frozen_norms"]:
            freeze_norms(self.backbone)
        if table["freeze_stem"]:
            self.backbone.freeze_stem()
        if table["freeze_p2"] and table["backbone"] is None:  # another one has no such first stage
            for name, parameter in self.backbone.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and not name.startswith(self.backbone.parts["p2"]))
        self.encoder: DeformableEncoder = DeformableEncoder(  # type: ignore[assignment]
            [self.backbone.levels[level].channels for level in LEVELS],
            hidden=sizes.hidden,
            layers=sizes.encoder_layers,
            heads=sizes.heads,
            ffn=sizes.ffn,
            temperature=sizes.temperature,
            offset=sizes.offset,
        )
        self.decoder: DINODecoder = DINODecoder(  # type: ignore[assignment]
            self.encoder.levels,
            nc=self.nc,
            hidden=sizes.hidden,
            queries=table["queries"],
            heads=sizes.heads,
            layers=sizes.decoder_layers,
            ffn=sizes.ffn,
            num_denoising=table["num_denoising"],
            box_noise=sizes.box_noise,
            shared_heads=sizes.shared_heads,
            spare_labels=sizes.spare_labels,
        )
        self.stride = torch.tensor([STRIDE], device="cpu")

    @property
    def head(self) -> DINODecoder:  # type: ignore[override]
        """The decoder."""
        return self.decoder

    def compiled_parts(self) -> tuple[nn.Module, ...]:
        """Return the backbone: encoder and decoder are compiled by layers."""
        return (self.backbone,)

    def compiled_layers(self) -> tuple[nn.Module, ...]:
        """Return the layers of encoder and decoder: one code for each kind, for any number of denoising queries."""
        return (*self.encoder.layers, *self.decoder.layers)

    def init_criterion(self) -> SetCriterion:
        """Return the loss of this model; override to change it. Of its gains ``box`` is GIoU's, ``dfl`` that of L1."""
        gains: dict[str, Any] = {GAINS[name]: gain for name, gain in (self.gains or {}).items()}
        return FocalSetCriterion(nc=self.nc, class_weights=self.class_weights, **gains)

    def predict(self, x: Tensor, batch: Mapping[str, Any] | None = None) -> Any:
        """Return a `SetPrediction` while training, else (detections (B, k, 6), `SetPrediction`); see `DINODecoder`.

        ``batch`` gives the objects of which denoising queries are made while training.
        """
        image = lines_of_image(x)
        padded = ~(image.rows[:, None, :, None] & image.columns[:, None, None])
        maps = self.backbone(normalised(x).masked_fill(padded, 0))
        memory, cells = self.encoder([maps[level] for level in LEVELS], image)
        return self.decoder(memory, cells, frame_of(image), batch)

    def adapt(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the state of a file of either layout, or of a backbone alone, under this model's names.

        Raises:
            ValueError: the layout is the other one: the same numbers would mean other boxes.
        """
        layout, own = layout_of(state), ORIGINAL if VARIANTS[self.yaml["variant"]].shared_heads else DETREX
        if layout not in (None, own):
            raise ValueError(
                f"these weights are in the layout of {LAYOUTS[str(layout)]}, and dino-{self.yaml['variant']} has other "
                f"outputs and another position code: load them into {LAYOUTS[str(layout)]}."
            )
        return rename(state)


def normalised(images: Tensor) -> Tensor:
    """Return images (B, ch, H, W) with values in [0, 1] as ImageNet's networks take them."""
    mean, std = (constants(per_channel(values, images.shape[1]), images)[:, None, None] for values in IMAGENET)
    return (images - mean) / std
