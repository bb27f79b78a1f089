"""Data sets without a YAML of their own: what their files and folders say of splits and classes.

A COCO or NDJSON file, a folder of COCO (`annotations/instances_train.json`, or `train/_annotations.coco.json` as
Roboflow exports it), or a folder of Pascal VOC (`Annotations`, `JPEGImages`, `ImageSets/Main/train.txt`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eyas.data.formats.ndjson import NDJSON, SUFFIXES
from eyas.data.formats.table import read_table
from eyas.data.formats.voc import class_names

FILES = (".json", *SUFFIXES)
_SPLIT = re.compile(r"(?<![a-z])(train|val|valid|validation|test)(?![a-z])", re.IGNORECASE)
_IMAGES = ("JPEGImages", "images", "Images")


def describe_file(file: Path, splits: Sequence[str]) -> dict[str, Any]:
    """Return the description of an annotation file: the splits that its lines name, or all of it as the split that is
    asked for, as `train` where that is among several.

    Raises:
        ValueError: an NDJSON file that cannot be read.
    """
    root, place = _root(file), str(file.absolute())  # relative ones would start at the root
    if file.suffix.lower() in SUFFIXES:
        found = [split for split in dict.fromkeys(read_table(file, NDJSON).splits) if split]
        if found:
            return {"path": root, **{split: {"annotations": place, "split": split} for split in found}}
    only = "train" if "train" in splits or not splits else splits[0]
    return {"path": root, only: place}


def describe_folder(folder: Path) -> dict[str, Any] | None:
    """Return the description of a folder of COCO or Pascal VOC; None for any other.

    Raises:
        ValueError: several files may be meant as one split, or files of Pascal VOC name no class.
    """
    found = _coco(folder) or _voc(folder)
    return {"path": folder.absolute(), **found} if found else None


def _root(file: Path) -> Path:
    folder = file.absolute().parent
    return folder.parent if folder.name == "annotations" else folder


def _coco(folder: Path) -> dict[str, Any]:
    files = sorted((folder / "annotations").glob("*.json"))
    files = [file for file in files if file.name.startswith("instances")] or files
    if not files:
        files = sorted(folder.glob("*/_annotations.coco.json"))
    splits: dict[str, str] = {}
    for file in files:
        split = _split_of(file.parent.name if file.name.startswith("_") else file.stem)
        if split is None:
            if len(files) > 1:
                continue
            split = "train"
        if split in splits:
            raise ValueError(
                f"{folder} holds several files for {split}: {Path(splits[split]).name}, {file.name}. Describe the data "
                "set by a YAML file that names one for each split."
            )
        splits[split] = str(file.relative_to(folder))
    return splits


def _split_of(name: str) -> str | None:
    found = _SPLIT.search(re.sub(r"[\d_]+", " ", name))
    return {"valid": "val", "validation": "val"}.get(found[1].lower(), found[1].lower()) if found else None


def _voc(folder: Path) -> dict[str, Any]:
    if not (folder / "Annotations").is_dir():
        return {}
    images = next((name for name in _IMAGES if (folder / name).is_dir()), "Annotations")
    whole = {"annotations": "Annotations", "images": images}
    lists = {split: Path("ImageSets", "Main", f"{split}.txt") for split in ("train", "val", "test")}
    listed = {split: whole | {"list": str(path)} for split, path in lists.items() if (folder / path).is_file()}
    return {**(listed or {"train": whole}), "names": class_names(folder / "Annotations")}
