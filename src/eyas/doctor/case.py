"""What checks look at: the index of each split, and what is made of it when a check first asks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np

from eyas.data.index import ImageIndex
from eyas.doctor.alike import find_pairs
from eyas.doctor.finding import Place, Seen
from eyas.doctor.pixels import Pixels, look_at

_NEAR = 0.01  # share of the image's side: people stop drawing a box some px before the border


class Split:
    """One split.

    Args:
        index: its images and labels.
        imgsz: length of the long side of an image in the network, px.
        workers: processes that decode images; None: as many as are worth it.
    """

    def __init__(self, index: ImageIndex, *, imgsz: int, workers: int | None = None) -> None:
        self.index = index
        self.imgsz = imgsz
        self.workers = workers

    def __len__(self) -> int:
        return len(self.index)

    @property
    def name(self) -> str:
        """Its name: "train", "val" or "test"."""
        return self.index.report.split

    @cached_property
    def pixels(self) -> Pixels:
        """What its images look like; all of them are decoded for it."""
        return look_at(self.index, self.workers)

    @cached_property
    def cls(self) -> np.ndarray:
        """(T,) int64 class of each box."""
        return self.index.cls.astype(np.int64)

    @cached_property
    def image_of(self) -> np.ndarray:
        """(T,) int64 image of each box, rising."""
        return np.repeat(np.arange(len(self)), self.index.objects())

    @cached_property
    def xyxy(self) -> np.ndarray:
        """(T, 4) float64 corners of each box in px of its image, cut at its border."""
        height_width = self.index.shapes[self.image_of].astype(np.float64)
        size = np.concatenate([height_width[:, ::-1]] * 2, axis=1)
        boxes = self.index.boxes.astype(np.float64)
        corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
        return corners.clip(0, 1) * size

    @cached_property
    def sides(self) -> np.ndarray:
        """(T, 2) float64 width and height of each box in px of its image."""
        return self.xyxy[:, 2:] - self.xyxy[:, :2]

    @cached_property
    def scale(self) -> np.ndarray:
        """(T,) float64 by which a box is scaled for the network."""
        return self.imgsz / self.index.shapes.max(axis=1, initial=1)[self.image_of]

    @cached_property
    def at_border(self) -> np.ndarray:
        """(T, 4) bool, which sides (left, top, right, bottom) of each box lie on the image's border, to 1 % of it."""
        size = self.index.shapes[self.image_of][:, ::-1]
        near = np.maximum(_NEAR * size, 1)
        return np.concatenate([self.xyxy[:, :2] <= near, self.xyxy[:, 2:] >= size - near], axis=1)

    def place(self, i: int, what: str = "", beside: Place | None = None, seen: tuple[Seen, ...] = ()) -> Place:
        """Return image i as a place."""
        return Place(self.name, self.index.path(i), i, what=what, beside=beside, seen=seen)

    def place_of(self, *rows: int, what: str = "") -> Place:
        """Return boxes of one image, by their rows among all boxes of the split, as a place."""
        i = int(self.image_of[rows[0]])
        first = int(self.index.label_offsets[i])
        return Place(self.name, self.index.path(i), i, labels=tuple(row - first for row in rows), what=what)


class Alike(NamedTuple):
    """Two images that show the same: a and its number, b and its number, and how (see `eyas.doctor.alike`).

    a stands before b in the order of the splits."""

    split_a: Split
    a: int
    split_b: Split
    b: int
    how: int

    def is_repeated(self) -> bool:
        """Whether it is one file, which a list names twice: so people give an image more weight."""
        return self.split_a is self.split_b and self.split_a.index.path(self.a) == self.split_b.index.path(self.b)

    def place(self, what: str = "") -> Place:
        """Return b as a place, beside a."""
        return self.split_b.place(self.b, what, beside=self.split_a.place(self.a))


class Case:
    """A data set to be examined.

    Args:
        names: {class id: name}.
        splits: those that could be opened, train first.
        closed: {split: why it could not be opened}.
        imgsz: length of the long side of an image in the network, px.
    """

    def __init__(self, names: Mapping[int, str], splits: list[Split], closed: Mapping[str, str], imgsz: int) -> None:
        self.names = dict(names)
        self.splits = {split.name: split for split in splits}
        self.closed = dict(closed)
        self.imgsz = imgsz

    @cached_property
    def alike(self) -> list[Alike]:
        """For every image and every split, one earlier image of that split that shows the same."""
        splits = list(self.splits.values())
        sizes = [len(split) for split in splits]
        if not sum(sizes):
            return []
        pairs = find_pairs(
            np.concatenate([split.pixels.thumbs for split in splits]),
            np.concatenate([split.pixels.digests for split in splits]),
            np.concatenate([split.pixels.contrast() for split in splits]),
            np.repeat(np.arange(len(splits)), sizes),
        )
        images = [(split, i) for split in splits for i in range(len(split))]
        found = [Alike(*images[a], *images[b], how) for a, b, how in pairs]
        return [pair for pair in found if not pair.is_repeated()]
