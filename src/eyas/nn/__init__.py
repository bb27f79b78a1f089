"""Layers: convolution blocks, cross-stage-partial blocks, attention. Torch only; they know no model and no option."""

from eyas.nn.attention import C2PSA, Attention, PSABlock
from eyas.nn.conv import Concat, Conv, DWConv, Upsample
from eyas.nn.csp import SPPF, Bottleneck, C3k, C3k2

__all__ = [
    "C2PSA", "SPPF", "Attention", "Bottleneck", "C3k", "C3k2", "Concat", "Conv", "DWConv", "PSABlock", "Upsample",
]  # fmt: skip
