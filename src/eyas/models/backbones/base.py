"""What a backbone promises to a detector."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from eyas.types import FeatureSpec


class Backbone(nn.Module):
    """Images (B, ch, H, W) to named maps ``p2`` ... ``p5``; level ``pk`` has a cell of 2**k pixels.

    Attributes:
        levels: channels and stride of every level, from the largest map to the smallest.
        parts: prefixes of the parameters that make each level out of the one before; ``p2`` includes the stem.
        stem_prefix: prefix of the first convolutions, the part that is frozen with published weights.
        blocks: groups of prefixes from the image upwards, one group per step of layer-wise learning rates. Every
            parameter starts with exactly one of these prefixes.
    """

    levels: Mapping[str, FeatureSpec]
    parts: Mapping[str, tuple[str, ...]]
    stem_prefix: str
    blocks: tuple[tuple[str, ...], ...]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (B, ch, H, W) to {"p2": (B, C2, ceil(H/4), ceil(W/4)), ...}, in the order of ``levels``."""
        raise NotImplementedError

    def freeze_stem(self, frozen: bool = True) -> None:
        """Take the parameters of the stem out of training, or put them back."""
        for name, parameter in self.named_parameters():
            if name.startswith(self.stem_prefix):
                parameter.requires_grad_(not frozen)


def init_convolutions(backbone: nn.Module) -> None:
    """Start from He's normal values by outgoing connections of a group: deep ReLU networks train from them."""
    for m in backbone.modules():
        if isinstance(m, nn.Conv2d):
            outgoing = m.kernel_size[0] * m.kernel_size[1] * m.out_channels // m.groups
            nn.init.normal_(m.weight, std=math.sqrt(2 / outgoing))
