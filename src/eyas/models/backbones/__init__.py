"""Backbones: networks that turn images into maps of several sizes, and say of themselves what a detector must know."""

from eyas.models.backbones.base import Backbone
from eyas.models.backbones.hgnetv2 import HGNETV2, HGNetV2
from eyas.models.backbones.host import BackboneHost
from eyas.models.backbones.resnet import RESNET, ResNet
from eyas.models.backbones.resnet_vd import RESNET_VD, ResNetVd
from eyas.models.backbones.stock import BACKBONES, named_backbone
from eyas.models.backbones.vit import VITS, ViTBackbone

__all__ = [
    "BACKBONES", "HGNETV2", "RESNET", "RESNET_VD", "VITS", "Backbone", "BackboneHost", "HGNetV2", "ResNet", "ResNetVd",
    "ViTBackbone", "named_backbone",
]  # fmt: skip
