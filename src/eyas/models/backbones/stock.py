"""Every backbone by its name, for all detectors that take one.

A table names it, ``backbone: vit-s14-dinov2``, or gives settings too: ``backbone: {name: vit-s16, pyramid: plain}``.
Names that begin with ``timm:`` are timm's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from eyas.models.backbones.base import Backbone
from eyas.models.backbones.from_timm import PREFIX, TimmBackbone, check_name
from eyas.models.backbones.hgnetv2 import HGNETV2, HGNetV2
from eyas.models.backbones.pyramid import PYRAMIDS
from eyas.models.backbones.resnet import RESNET, ResNet
from eyas.models.backbones.resnet_vd import RESNET_VD, ResNetVd
from eyas.models.backbones.vit import VITS, ViTBackbone
from eyas.models.table import shown
from eyas.names import did_you_mean

Build = Callable[..., Backbone]


def _vit(name: str) -> Build:
    return lambda ch, **settings: ViTBackbone(name, ch, **settings)


def _resnet(depth: int) -> Build:
    return lambda ch: ResNetVd(depth, ch)


def _plain(name: str) -> Build:
    return lambda ch: ResNet(name, ch)


def _hgnet(name: str) -> Build:
    return lambda ch: HGNetV2(name, ch)


BACKBONES: Mapping[str, Build] = MappingProxyType(
    {f"resnet{depth}-vd": _resnet(depth) for depth in RESNET_VD}
    | {name: _plain(name) for name in RESNET}
    | {f"hgnetv2-{name.lower()}": _hgnet(name) for name in HGNETV2}
    | {name: _vit(name) for name in VITS}
)
"""Name -> function that builds it, with random weights, for images of so many channels."""
SETTINGS: Mapping[str, Mapping[str, tuple[object, ...]]] = MappingProxyType(
    {name: {"pyramid": tuple(PYRAMIDS), "final_norm": (True, False)} for name in VITS}
)
"""Name -> what else a table may say of it, and the values."""


def named_backbone(what: str | Mapping[str, Any], ch: int = 3) -> Backbone:
    """Return a backbone of a table's entry, see `checked_backbone`, from random weights; its name is set."""
    given = {"name": what} if isinstance(what, str) else dict(what)
    name = given.pop("name")
    backbone = TimmBackbone(name, ch) if name.startswith(PREFIX) else BACKBONES[name](ch, **given)
    backbone.name = name
    return backbone


def checked_backbone(what: object) -> str | dict[str, Any]:
    """Return a table's entry: the name of a backbone, or a mapping of ``name`` and its settings.

    Raises:
        ValueError: there is no such backbone, or it has no such setting; offers the nearest.
        ModuleNotFoundError: it is one of timm, which is not installed.
    """
    given = dict(what) if isinstance(what, Mapping) else {"name": what}
    name = str(given.pop("name", "")).strip().lower()
    if name.startswith(PREFIX):
        check_name(name)
    elif name not in BACKBONES:
        raise ValueError(
            f"no backbone is called {shown(name)}.{did_you_mean(name, BACKBONES)} There are {', '.join(BACKBONES)}."
        )
    settings = SETTINGS.get(name, {})
    for key, value in given.items():
        if key not in settings:
            raise ValueError(f"{name} has no {shown(key)}.{did_you_mean(key, settings)} It has {list(settings)}.")
        if value not in settings[key]:
            raise ValueError(f"{key} of {name} is {shown(value)}, and must be one of {list(settings[key])}.")
    return {"name": name, **given} if given else name
