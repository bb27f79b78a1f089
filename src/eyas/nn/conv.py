"""Convolution blocks (spec core C.0). Sub-module names are state-dict keys: renaming one breaks every checkpoint.

Legend: ``B`` images, ``C`` channels, ``H`` x ``W`` positions; ``c1`` channels in, ``c2`` channels out, ``k`` kernel,
``s`` stride, ``p`` padding, ``g`` groups, ``d`` dilation.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from eyas.nn.recomputed import norm_then_act

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def same_padding(k: int, d: int = 1) -> int:
    """Return the padding that keeps the size at stride 1 for an odd kernel ``k`` with dilation ``d``."""
    return (d * (k - 1) + 1) // 2


class Fusable(nn.Module):
    """A layer that can fold its normalisation into its convolution once training is over."""

    def fuse(self) -> None:
        """Fold, for inference only; does nothing the second time."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is fused")


class Conv(Fusable):
    """Convolution, batch normalisation, activation: (B, c1, H, W) -> (B, c2, H/s, W/s).

    ``act``: True gives SiLU, a module is used as it is, False gives the identity.

    Attributes:
        saves_memory: what the gradient of a SiLU needs is computed again instead of kept, see `eyas.nn.recomputed`.
    """

    saves_memory: bool = False

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        d: int = 1,
        act: bool | nn.Module = True,
    ) -> None:
        super().__init__()
        padding = same_padding(k, d) if p is None else p
        self.conv = nn.Conv2d(c1, c2, k, s, padding, groups=g, dilation=d, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c2)
        # Not in place: autograd would have to clone the input of an in-place SiLU, which costs more than it saves.
        self.act = act if isinstance(act, nn.Module) else nn.SiLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H/s, W/s)."""
        if self.saves_memory:
            return norm_then_act(self.bn, self.act, self.conv(x))
        return self.act(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Fold the normalisation into the convolution, for inference only; does nothing the second time."""
        if isinstance(self.bn, nn.modules.batchnorm._BatchNorm):
            self.eval()
            self.conv = fuse_conv_bn_eval(self.conv, self.bn).requires_grad_(False)
            self.bn = nn.Identity()


class DWConv(Conv):
    """Depthwise `Conv`: as many groups as ``c1`` and ``c2`` share."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, d: int = 1, act: bool | nn.Module = True) -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), d=d, act=act)


class Concat(nn.Module):
    """Join feature maps of one size along ``dim`` (channels by default)."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map [(B, Ci, H, W), ...] to (B, sum Ci, H, W)."""
        return torch.cat(tuple(maps), self.dim)


class Upsample(nn.Module):
    """Enlarge a map by ``factor`` with ``mode`` (nearest by default); no parameters."""

    def __init__(self, factor: float = 2, mode: str = "nearest") -> None:
        super().__init__()
        self.factor = float(factor)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, factor H, factor W)."""
        return interpolate(x, scale_factor=self.factor, mode=self.mode)
