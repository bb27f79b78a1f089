"""Published weights of the RT-DETR family: where they are, under which licence, and how they are read (spec detr 9).

Eyas ships none of them. Every file is Apache-2.0, fetched from its authors' release on request, and kept in the cache.
"""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from eyas.data.cache import cache_root
from eyas.data.download import download_file
from eyas.log import LOGGER
from eyas.models.rtdetr.keys import rename

_RELEASES = "https://github.com/lyuwenyu/storage/releases/download"
_RTDETR = "github.com/lyuwenyu/RT-DETR"
_PADDLECLAS = "github.com/PaddlePaddle/PaddleClas, converted by github.com/lyuwenyu/RT-DETR"


@dataclass(frozen=True)
class Published:
    """One file of weights.

    Args:
        name: what it is called here.
        url: where it is.
        model: name of the model that it fits, in the catalogue.
        trained_on: data it was trained with, in order.
        licence: SPDX name.
        source: the project that published it.
        ap: box AP on COCO val2017 at 640 px in that project's table; None if it has none.
        sha256: of the file; None if not known, then only its length is checked.
    """

    name: str
    url: str
    model: str
    trained_on: str = "COCO"
    licence: str = "Apache-2.0"
    source: str = _RTDETR
    ap: float | None = None
    sha256: str | None = None

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[-1]


def _coco(name: str, file: str, ap: float, release: str = "v0.1", model: str = "", data: str = "COCO") -> Published:
    return Published(name, f"{_RELEASES}/{release}/{file}.pth", model or name, data, ap=ap)


def _backbone(name: str, file: str, model: str) -> Published:
    url = f"{_RELEASES}/v0.1/{file}_from_paddle.pth"
    return Published(name, url, model, "ImageNet", source=_PADDLECLAS)


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


class UnknownWeightsError(ValueError):
    """Neither a published file has this name, nor one on the disk."""


def published(name: str) -> Published:
    """Return the entry of a name, in any case.

    Raises:
        UnknownWeightsError: there is none; offers the nearest.
    """
    key = name.strip().lower()
    if key in PUBLISHED:
        return PUBLISHED[key]
    near = difflib.get_close_matches(key, PUBLISHED, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    no_file = "" if Path(name).is_file() else ", and no file is"
    raise UnknownWeightsError(
        f"no published weights are called {name!r}{no_file}: {hint}there are {', '.join(PUBLISHED)}."
    )


def is_name(source: str | Path) -> bool:
    """Whether weights are given by a name: a text without folder and suffix that is no file."""
    path = Path(source)
    return isinstance(source, str) and not path.suffix and path.parent == Path() and not path.is_file()


def model_of(source: str | Path) -> str:
    """Return the name of the model that published weights fit, known by their name or file; else a usual one."""
    key = Path(source).name.lower()
    return next((entry.model for entry in _ENTRIES if key in (entry.name, entry.file.lower())), "rtdetr-r50")


def fetch_published(entry: Published | str, cache_dir: str | Path | None = None) -> Path:
    """Return the path of a published file, fetched into the cache the first time; its licence is logged then.

    A file of the same name that was put there by hand is used as it is.

    Raises:
        UnknownWeightsError: no such entry.
        ValueError: it cannot be fetched, for example without a network, or is not what was published. Nothing is left.
    """
    entry = published(entry) if isinstance(entry, str) else entry
    path = cache_root(cache_dir) / "weights" / entry.file
    if path.is_file():
        return path
    LOGGER.info("%s: weights by %s under %s, trained on %s", entry.name, entry.source, entry.licence, entry.trained_on)
    try:
        return download_file(entry.url, path, sha256=entry.sha256)
    except ValueError as error:
        raise ValueError(
            f"{error}\nWithout a network, fetch {entry.url} elsewhere and put it at {path}, or give the path of a file."
        ) from error


def read_published(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a file of RT-DETR v1, v2 or a backbone under our names; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no file of tensors, or holds none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights at {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no file of tensors that can be read without running code: {error}") from error
    state = plain_state(content)
    if state is None:
        raise ValueError(f"{path} holds no weights: neither 'ema' nor 'model', nor tensors by name.")
    return rename(state)


def plain_state(content: object) -> dict[str, Tensor] | None:
    """Return the tensors by name in what a file holds, the averaged ones first: ``ema.module``, ``ema``, ``model``.

    None if there are none.
    """
    if not isinstance(content, Mapping):
        return None
    for key in ("ema", "module", "model", "state_dict"):
        if isinstance(inner := content.get(key), Mapping):
            return plain_state(inner)
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)} or None
