"""Layers: convolution blocks, cross-stage-partial blocks, attention. Torch only; they know no model and no option."""

from eyas.nn.attention import C2PSA, Attention, PSABlock
from eyas.nn.conv import Concat, Conv, DWConv, Fusable, Upsample
from eyas.nn.csp import SPPF, Bottleneck, C3k, C3k2
from eyas.nn.deformable import MSDeformAttn, deformable_sample
from eyas.nn.encoder import AIFI, position_code, post_norm_layer
from eyas.nn.hgnet import HGBlock, HGStem, LightConv
from eyas.nn.rep import RepC3, RepConv
from eyas.nn.resnet import ResNetBlock, ResNetLayer

__all__ = [
    "AIFI", "C2PSA", "SPPF", "Attention", "Bottleneck", "C3k", "C3k2", "Concat", "Conv", "DWConv", "Fusable", "HGBlock",
    "HGStem", "LightConv", "MSDeformAttn", "PSABlock", "RepC3", "RepConv", "ResNetBlock", "ResNetLayer", "Upsample",
    "deformable_sample", "position_code", "post_norm_layer",
]  # fmt: skip
