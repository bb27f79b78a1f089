"""Published weights of the RT-DETR family: where they are, and how they are read (spec detr 9).

Every file is Apache-2.0, and fetched from its authors' release on request.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from eyas.checkpoint import CheckpointError, read_tensors
from eyas.models.published import Published
from eyas.models.rtdetr.keys import rename
from eyas.models.weights import plain_state

_RELEASES = "https://github.com/lyuwenyu/storage/releases/download"
_RTDETR = "github.com/lyuwenyu/RT-DETR"
_PADDLECLAS = "github.com/PaddlePaddle/PaddleClas, converted by github.com/lyuwenyu/RT-DETR"


def _coco(name: str, file: str, ap: float, release: str = "v0.1", model: str = "", data: str = "COCO") -> Published:
    return Published(name, f"{_RELEASES}/{release}/{file}.pth", model or name, _RTDETR, data, ap=ap)


def _backbone(name: str, file: str, model: str) -> Published:
    url = f"{_RELEASES}/v0.1/{file}_from_paddle.pth"
    return Published(name, url, model, _PADDLECLAS, "ImageNet")


_O365 = "Objects365, COCO"
_ENTRIES = (
    _coco("rtdetr-r18", "rtdetr_r18vd_dec3_6x_coco_from_paddle", 46.4),
    _coco("rtdetr-r34", "rtdetr_r34vd_dec4_6x_coco_from_paddle", 48.9),
    _coco("rtdetr-r50m", "rtdetr_r50vd_m_6x_coco_from_paddle", 51.3),
    _coco("rtdetr-r50", "rtdetr_r50vd_6x_coco_from_paddle", 53.1),
    _coco("rtdetr-r101", "rtdetr_r101vd_6x_coco_from_paddle", 54.3),
    _coco("rtdetr-r18-o365", "rtdetr_r18vd_5x_coco_objects365_from_paddle", 49.0, model="rtdetr-r18", data=_O365),
    _coco("rtdetr-r50-o365", "rtdetr_r50vd_2x_coco_objects365_from_paddle", 55.2, model="rtdetr-r50", data=_O365),
    _coco("rtdetr-r101-o365", "rtdetr_r101vd_2x_coco_objects365_from_paddle", 56.2, model="rtdetr-r101", data=_O365),
    _coco("rtdetrv2-r18", "rtdetrv2_r18vd_120e_coco_rerun_48.1", 48.1, "v0.2"),
    _coco("rtdetrv2-r34", "rtdetrv2_r34vd_120e_coco_ema", 49.9),
    _coco("rtdetrv2-r50m", "rtdetrv2_r50vd_m_7x_coco_ema", 51.9),
    _coco("rtdetrv2-r50", "rtdetrv2_r50vd_6x_coco_ema", 53.4),
    _coco("rtdetrv2-r101", "rtdetrv2_r101vd_6x_coco_from_paddle", 54.3),
    _coco("rtdetrv2-hgnetv2-l", "rtdetrv2_hgnetv2_l_6x_coco_from_paddle", 52.9),
    _coco("rtdetrv2-hgnetv2-x", "rtdetrv2_hgnetv2_x_6x_coco_from_paddle", 54.7),
    _coco("rtdetrv2-hgnetv2-h", "rtdetrv2_hgnetv2_h_6x_coco_from_paddle", 56.3),
    _backbone("resnet18-vd", "ResNet18_vd_pretrained", "rtdetr-r18"),
    _backbone("resnet34-vd", "ResNet34_vd_pretrained", "rtdetr-r34"),
    _backbone("resnet50-vd", "ResNet50_vd_ssld_v2_pretrained", "rtdetr-r50"),
    _backbone("resnet101-vd", "ResNet101_vd_ssld_pretrained", "rtdetr-r101"),
    _backbone("hgnetv2-l", "PPHGNetV2_L_ssld_pretrained", "rtdetr-hgnetv2-l"),
    _backbone("hgnetv2-x", "PPHGNetV2_X_ssld_pretrained", "rtdetr-hgnetv2-x"),
    _backbone("hgnetv2-h", "PPHGNetV2_H_ssld_pretrained", "rtdetr-hgnetv2-h"),
)
PUBLISHED: Mapping[str, Published] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""Name -> file. Those named like a model are whole detectors, those named like a backbone its ImageNet weights."""


def read_published(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a file of RT-DETR v1, v2 or a backbone under our names; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is no file of tensors, damaged, or holds none.
    """
    state = plain_state(read_tensors(path))
    if state is None:
        raise CheckpointError(f"{path} holds no weights: neither 'ema' nor 'model', nor tensors by name.")
    return rename(state)
