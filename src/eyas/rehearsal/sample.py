"""A handful of the user's images: as many classes as they can show, and those with the most objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from eyas.config import TrainOptions
from eyas.data.dataset_yaml import check_dataset
from eyas.data.formats import LabelSource
from eyas.data.formats.base import ANY_CLASS
from eyas.data.formats.yolo import IGNORED, label_path
from eyas.data.ignore import IgnoreRules
from eyas.data.image_file import copy_image_file
from eyas.data.index import ImageIndex, build_index
from eyas.evaluate import assemble

TRAIN, VAL = 8, 4
LOOK_AT = 2000  # images whose labels are read; a second or two


@dataclass(frozen=True)
class Sample:
    """What was chosen.

    Attributes:
        few: YAML of the few images.
        fullest: YAML of the images with most objects, for training and validation alike.
        images: how many of the few are for training.
        objects: the most objects in one image.
    """

    few: str
    fullest: str
    images: int
    objects: int


def choose_sample(options: TrainOptions, folder: Path, batch: int) -> Sample:
    """Choose images and write lists and descriptions of them into a folder.

    Args:
        options: of the real run; ``data``, ``classes`` and ``single_cls`` count.
        folder: where the lists go.
        batch: how many of the fullest images are wanted.

    Raises:
        ValueError: what is wrong with the data.
    """
    if options.data is None:
        raise ValueError("no data was given; for example data=my.yaml, or data=digits for the embedded set.")
    data = described_data(options)
    split = {name: split_index(data, options, name) for name in ("train", "val")}
    few = {name: cover(class_sets(split[name]), count) for name, count in (("train", TRAIN), ("val", VAL))}
    objects = split["train"].objects()
    fullest = [int(i) for i in (-objects).argsort(kind="stable")[:batch]]

    def paths(name: str, chosen: list[int]) -> list[str]:
        if isinstance(data[name], LabelSource):
            return copies(data, name, chosen, folder / name)
        return [split[name].path(i) for i in chosen]

    rules = reading_rules(data, split["train"])
    lists = {name: write_list(folder / f"{name}.txt", paths(name, few[name])) for name in few}
    full = write_list(folder / "fullest.txt", paths("train", fullest))
    return Sample(
        few=str(write_yaml(folder / "few.yaml", lists["train"], lists["val"], rules)),
        fullest=str(write_yaml(folder / "fullest.yaml", full, lists["val"], rules)),
        images=len(few["train"]),
        objects=int(objects.max(initial=0)),
    )


def described_data(options: TrainOptions) -> dict[str, Any]:
    """Return the description of the data; where there is nothing to validate on, what is trained on stands in."""
    needed = ("train", "val") if options.val else ("train",)
    data = check_dataset(
        options.data or "",
        splits=needed,
        optional=("val",),
        ids_start=options.ids_start,
        val_fraction=options.val_fraction,
        remote_cache=options.remote_cache,
    )
    return data | {"val": data["val"] or data["train"]}


def split_index(data: Mapping[str, Any], options: TrainOptions, split: str) -> ImageIndex:
    """Return images and labels of a split, of a random part of a large one."""
    named = {**data, "names": {0: "item"}} if options.single_cls else data
    return assemble.split_index(options, named, data[split], split, fraction=LOOK_AT)


def reading_rules(data: Mapping[str, Any], index: ImageIndex) -> dict[str, Any]:
    """Return the keys of a description that say how images and labels of YOLO text are read: as in all of the data."""
    ids = data["ids"] or range(data["nc"])
    rules: dict[str, Any] = {"names": {int(i): name for i, name in zip(ids, data["names"].values(), strict=True)}}
    if ids[0] == 0:  # said, because a few images may look as if they counted from 1
        rules["ids_start"] = 0
    if data["keypoints"]:
        rules["kpt_shape"] = list(data["keypoints"])
    rules |= ignoring_rules(data["ignore"], data["names"])
    white = {white for white in index.white if white is not None}
    return rules | ({"value_range": white.pop()} if len(white) == 1 else {})


def ignoring_rules(rules: IgnoreRules, names: Mapping[int, str]) -> dict[str, Any]:
    """Return the keys of a description that say what is not annotated."""
    told: dict[str, Any] = {} if rules.use else {"ignore": False}
    if rules.classes:
        told["ignore"] = [names[i] for i in rules.classes]
    if rules.annotated:
        told["annotated"] = {folder: [names[i] for i in ids] for folder, ids in rules.annotated}
    return told


def class_sets(index: ImageIndex) -> list[set[int]]:
    """Return the classes in each image."""
    return [{int(cls) for cls in index.labels(i)[0]} for i in range(len(index))]


def cover(classes: Sequence[set[int]], count: int) -> list[int]:
    """Return positions of ``count`` images that show as many classes as possible; ties keep the earlier."""
    chosen: list[int] = []
    missing = set[int]().union(*classes)
    for _ in range(min(count, len(classes))):
        left = [i for i in range(len(classes)) if i not in chosen]
        best = max(left, key=lambda i: (len(classes[i] & missing), len(classes[i]) > 0, -i))
        chosen.append(best)
        missing -= classes[best]
    return sorted(chosen)


def copies(data: Mapping[str, Any], split: str, chosen: Sequence[int], folder: Path) -> list[str]:
    """Copy images of a split that is labelled by another format, with labels in YOLO text, and return the copies.

    Part of a rehearsal runs without the user's code, and so without a format that it registers. Labels are written as
    they are in the user's files: ``classes`` and ``single_cls`` come later.
    """
    index = build_index(
        data[split],
        names=data["names"],
        fraction=LOOK_AT,
        val_fraction=data["val_fraction"],
        ignore=data["ignore"]._replace(use=True, classes=()),  # those come later, too
        split=split,
    )
    return [str(copy_with_labels(index, i, folder)) for i in chosen]


def copy_with_labels(index: ImageIndex, i: int, folder: Path) -> Path:
    """Copy an image below a folder, write its labels as YOLO text where they are looked for, and return the copy.

    What was not annotated in it is written beside its labels.
    """
    original = Path(index.path(i))
    image = folder / "images" / f"{i}-{original.name}"
    label = Path(label_path(str(image)))
    for place in (image, label):
        place.parent.mkdir(parents=True, exist_ok=True)
    copy_image_file(original, image)
    rows = (f"{cls:.0f} {' '.join(map(str, box.tolist()))}\n" for cls, box in zip(*index.labels(i), strict=True))
    label.write_text("".join(rows))
    areas = [
        f"{known_as} {' '.join(map(str, box.tolist()))}\n"
        for kind, box in zip(*index.areas(i), strict=True)
        for known_as in ignored_ids(index.ignored_classes[kind])
    ]
    if areas:
        place = Path(label_path(str(image), IGNORED))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(areas))
    return image


def ignored_ids(classes: np.ndarray) -> list[int]:
    """Return the ids in a file of areas to ignore that stand for the classes of (nc,) bool; -1 stands for all."""
    return [int(ANY_CLASS)] if classes.all() else np.flatnonzero(classes).tolist()


def write_list(path: Path, images: Sequence[str]) -> Path:
    """Write the paths of images, one a line."""
    path.write_text("".join(f"{image}\n" for image in images), encoding="utf-8")
    return path


def write_yaml(path: Path, train: Path, val: Path, rules: Mapping[str, Any]) -> Path:
    """Write the description of a data set of two lists."""
    text = yaml.safe_dump({"path": str(path.parent), "train": str(train), "val": str(val), **rules})
    path.write_text(text, encoding="utf-8")
    return path
