"""Convolution with normalisation in the layout of the RT-DETR lineage. Sub-module names are state-dict keys.

`eyas.nn.Conv` is the same idea with other key names (``bn``), another default activation and other constants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from eyas.nn.conv import Fusable
from eyas.nn.frozen_norm import FrozenBatchNorm2d
from eyas.nn.recomputed import norm_then_act

if TYPE_CHECKING:
    from torch import Tensor


def fold_norm(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """Return one biased convolution that equals ``norm(conv(x))`` in evaluation; nothing in it is trained."""
    # It reads statistics, scale and shift, which all our normalisations have.
    return fuse_conv_bn_eval(conv.eval(), norm.eval()).requires_grad_(False)  # type: ignore[arg-type]


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation that can be folded into a convolution."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm | FrozenBatchNorm2d)


class ConvNorm(Fusable):
    """Convolution without bias, batch normalisation, activation: (B, c1, H, W) -> (B, c2, ceil(H/s), ceil(W/s)).

    ``k`` is odd; padding keeps the size at stride 1. ``act`` None means the identity; ``g`` groups.

    Attributes:
        saves_memory: what the gradient of a SiLU needs is computed again instead of kept, see `eyas.nn.recomputed`.
    """

    saves_memory: bool = False

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, act: nn.Module | None = None, g: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2, groups=g, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(c2)
        self.act = nn.Identity() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, ceil(H/s), ceil(W/s))."""
        if self.saves_memory:
            return norm_then_act(self.norm, self.act, self.conv(x))
        return self.act(self.norm(self.conv(x)))

    def fuse(self) -> None:
        """Fold the normalisation into the convolution, for inference only; does nothing the second time."""
        if is_norm(self.norm):
            self.conv = fold_norm(self.conv, self.norm)
            self.norm = nn.Identity()
