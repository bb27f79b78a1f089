"""Public data sets by name. Naming one is asking for it: its size is said first, and it is fetched once.

Addresses, sizes and checksums are those that the sets' own pages and other libraries state; none is known of COCO128.
"""

from __future__ import annotations

import os
import shutil
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eyas.data.cache import locked
from eyas.data.download import NoRoom, archive_folder, download_archive, refuse_large, size_of
from eyas.data.sizes import readable
from eyas.log import LOGGER

# fmt: off
COCO_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on


class Archive(NamedTuple):
    """One file of a public set.

    Attributes:
        url: its address.
        size: in bytes; None: its server is asked.
        md5: hexadecimal, where it is known.
        into: the folder of the set that it is unpacked into; "" for the set's own.
    """

    url: str
    size: int | None = None
    md5: str | None = None
    into: str = ""


class PublicSet(NamedTuple):
    """A public set: its archives, what a YAML file in its folder would say, and under which terms it comes."""

    archives: tuple[Archive, ...]
    content: dict[str, Any]
    terms: str


def _voc(into: str, year: int, part: str) -> dict[str, Any]:
    folder = f"{into}/VOCdevkit/VOC{year}"
    listed = {"list": f"{folder}/ImageSets/Main/{part}.txt", "from_1": True}
    return {"annotations": f"{folder}/Annotations", "images": f"{folder}/JPEGImages", **listed}


_COCO = "http://images.cocodataset.org"
_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
PUBLIC: dict[str, PublicSet] = {
    "coco128": PublicSet(
        (Archive("https://github.com/ultralytics/assets/releases/download/v0.0.0/coco128.zip"),),
        {
            "train": "coco128/images/train2017",
            "val": "coco128/images/train2017",
            "names": list(COCO_NAMES),
        },
        "the first 128 images of COCO train2017: see coco",
    ),
    "coco": PublicSet(
        (
            Archive(
                f"{_COCO}/annotations/annotations_trainval2017.zip", 252_907_541, "f4bbac642086de4f52a3fdda2de5fa2c"
            ),
            Archive(f"{_COCO}/zips/val2017.zip", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
            Archive(f"{_COCO}/zips/train2017.zip", 19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2"),
        ),
        {
            "train": {"annotations": "annotations/instances_train2017.json", "images": "train2017"},
            "val": {"annotations": "annotations/instances_val2017.json", "images": "val2017"},
            "names": list(COCO_NAMES),
        },
        "annotations CC BY 4.0, images under the terms of Flickr: cocodataset.org/#termsofuse",
    ),
    "voc": PublicSet(
        (
            Archive(
                f"{_VOC}/voc2007/VOCtrainval_06-Nov-2007.tar", None, "c52e279531787c972589f7e41ab4ae64", "trainval2007"
            ),
            Archive(f"{_VOC}/voc2007/VOCtest_06-Nov-2007.tar", None, "b6e924de25625d8de591ea690078ad9f", "test2007"),
            Archive(
                f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar", None, "6cd6e144f989b92b3379bac3b3de84fd", "trainval2012"
            ),
        ),
        {
            "train": [_voc("trainval2007", 2007, "trainval"), _voc("trainval2012", 2012, "trainval")],
            "val": [_voc("test2007", 2007, "test")],
            "names": list(VOC_NAMES),
        },
        "images under the terms of Flickr: host.robots.ox.ac.uk/pascal/VOC",
    ),
}


def fetch_public(name: str, folder: Path) -> Path:
    """Return the folder of a public set below `folder`, fetched first if it is not there.

    Raises:
        ValueError: it is larger than `eyas.data.download.download_limit` allows or the disk has room for, which is
            said before anything is fetched; or as `download_archive`.
    """
    public, target = PUBLIC[name], folder / name
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with locked(target):
        if not target.is_dir():
            parts = folder / f".{name}"
            _announce(name, public, parts)
            unpacked = [download_archive(archive.url, parts, md5=archive.md5) for archive in public.archives]
            _join(parts, public.archives, unpacked, target)
    return target


def _announce(name: str, public: PublicSet, parts: Path) -> None:
    """Say what will be fetched, or refuse it."""
    missing = [archive for archive in public.archives if not archive_folder(archive.url, parts).is_dir()]
    sizes = [archive.size or size_of(archive.url) or 0 for archive in missing]
    hosts = ", ".join(sorted({urllib.parse.urlsplit(archive.url).netloc for archive in missing}))
    total = sum(sizes)
    refuse_large(f"The data set {name}", total)
    free, need = shutil.disk_usage(parts.parent).free, total + max(sizes, default=0)
    if need > free:
        raise NoRoom(
            f"The data set {name} takes about {readable(need)} while it is unpacked, but only {readable(free)} are "
            f"free in {parts.parent}. Set EYAS_CACHE to a folder on a larger disk."
        )
    size = readable(total) if all(sizes) else "a size that its server does not tell"
    LOGGER.info(
        "The data set %s: %s from %s, kept in %s. Terms: %s", name, size, hosts, parts.parent / name, public.terms
    )


def _join(parts: Path, archives: Sequence[Archive], unpacked: Sequence[Path], target: Path) -> None:
    """Move what was unpacked into the folder of the set, which appears in one step."""
    whole = parts / "whole"
    for archive, place in zip(archives, unpacked, strict=True):
        inside = whole / archive.into
        inside.mkdir(parents=True, exist_ok=True)
        for entry in sorted(place.iterdir()):
            os.rename(entry, inside / entry.name)
    os.rename(whole, target)
    shutil.rmtree(parts)
