"""Published weights of D-FINE: where they are (spec detr 9). Every file is Apache-2.0, fetched on request."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from eyas.models.published import Published

_RELEASE = "https://github.com/Peterande/storage/releases/download/dfinev1.0"
_DFINE = "github.com/Peterande/D-FINE"
_PADDLECLAS = "github.com/PaddlePaddle/PaddleClas, converted by github.com/Peterande/D-FINE"


def _file(name: str, file: str, model: str, ap: float | None = None, data: str = "COCO") -> Published:
    return Published(name, f"{_RELEASE}/{file}.pth", model, _DFINE, data, ap=ap)


def _backbone(name: str, file: str, model: str) -> Published:
    return Published(name, f"{_RELEASE}/PPHGNetV2_{file}_stage1.pth", model, _PADDLECLAS, "ImageNet")


_O365, _BOTH = "Objects365", "Objects365, COCO"
_ENTRIES = (
    _file("dfine-n", "dfine_n_coco", "dfine-n", 42.8),
    _file("dfine-s", "dfine_s_coco", "dfine-s", 48.5),
    _file("dfine-m", "dfine_m_coco", "dfine-m", 52.3),
    _file("dfine-l", "dfine_l_coco", "dfine-l", 54.0),
    _file("dfine-x", "dfine_x_coco", "dfine-x", 55.8),
    _file("dfine-s-o365", "dfine_s_obj2coco", "dfine-s", 50.7, _BOTH),
    _file("dfine-m-o365", "dfine_m_obj2coco", "dfine-m", 55.1, _BOTH),
    _file("dfine-l-o365", "dfine_l_obj2coco_e25", "dfine-l", 57.3, _BOTH),
    _file("dfine-x-o365", "dfine_x_obj2coco", "dfine-x", 59.3, _BOTH),
    _file("dfine-s-o365-only", "dfine_s_obj365", "dfine-s", data=_O365),
    _file("dfine-m-o365-only", "dfine_m_obj365", "dfine-m", data=_O365),
    _file("dfine-l-o365-only", "dfine_l_obj365_e25", "dfine-l", data=_O365),
    _file("dfine-x-o365-only", "dfine_x_obj365", "dfine-x", data=_O365),
    _backbone("hgnetv2-b0", "B0", "dfine-n"),
    _backbone("hgnetv2-b2", "B2", "dfine-m"),
    _backbone("hgnetv2-b4", "B4", "dfine-l"),
    _backbone("hgnetv2-b5", "B5", "dfine-x"),
)
PUBLISHED: Mapping[str, Published] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""Name -> file. Those named like a model are whole detectors, those named like a backbone its ImageNet weights."""
