"""A handful of the user's images: as many classes as they can show, and those with the most objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from eyas.config import TrainOptions
from eyas.data.dataset_yaml import check_dataset
from eyas.data.index import ImageIndex, build_index

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
    data = check_dataset(options.data, splits=("train", "val"))
    split = {name: split_index(data[name], data["names"], options, name) for name in ("train", "val")}
    few = {name: cover(class_sets(split[name]), count) for name, count in (("train", TRAIN), ("val", VAL))}
    objects = split["train"].objects()
    fullest = [int(i) for i in (-objects).argsort(kind="stable")[:batch]]
    lists = {name: write_list(folder / f"{name}.txt", split[name], few[name]) for name in few}
    full = write_list(folder / "fullest.txt", split["train"], fullest)
    return Sample(
        few=str(write_yaml(folder / "few.yaml", lists["train"], lists["val"], data["names"])),
        fullest=str(write_yaml(folder / "fullest.yaml", full, lists["val"], data["names"])),
        images=len(few["train"]),
        objects=int(objects.max(initial=0)),
    )


def split_index(sources: Sequence[Path], names: dict[int, str], options: TrainOptions, split: str) -> ImageIndex:
    """Return images and labels of a split, of a random part of a large one."""
    single = options.single_cls
    return build_index(
        sources,
        names={0: "item"} if single else names,
        single_cls=single,
        classes=options.classes,
        fraction=LOOK_AT,
        split=split,
    )


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


def write_list(path: Path, index: ImageIndex, chosen: Sequence[int]) -> Path:
    """Write the paths of images, one a line."""
    path.write_text("".join(f"{index.path(i)}\n" for i in chosen), encoding="utf-8")
    return path


def write_yaml(path: Path, train: Path, val: Path, names: dict[int, str]) -> Path:
    """Write the description of a data set of two lists."""
    text = yaml.safe_dump({"path": str(path.parent), "train": str(train), "val": str(val), "names": dict(names)})
    path.write_text(text, encoding="utf-8")
    return path
