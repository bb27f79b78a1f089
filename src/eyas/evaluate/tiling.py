"""Large images in tiles that overlap: where the tiles lie, and how their detections become those of the image.

The rule for objects that several tiles see: two detections of one class from two tiles are the same object if their
parts inside the area that both tiles see overlap by an IoU above ``SAME``. Any two tiles pair their detections one to
one, the largest overlap first. An object has the best score and the class of its detections; its box is that of the
best one which no border of its tile cuts, or, if all are cut, the rectangle around them. So an object that is whole in
one tile drops its fragments in the others, one that is larger than the overlap is put together from its fragments, and
two objects of one tile stay two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from eyas.boxes import pairwise_iou

SAME = 0.5  # IoU, in the area that both tiles see
EDGE = 0.01  # share of a tile's side: a box that comes as near to the border is taken to be cut by it
NEAREST = 1.0  # pixel, for small tiles

Find = Callable[[Sequence[NDArray[np.uint8]]], list[Tensor]]


@dataclass(frozen=True)
class Tiling:
    """How large images are cut.

    Attributes:
        side: length of the square tiles in pixels of the image, >= 1. An image no larger than that stays whole.
        overlap: share of a tile's side that neighbours have in common at least, in [0, 1).
    """

    side: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.side < 1 or not 0 <= self.overlap < 1:
            raise ValueError(f"tiles of {self.side} pixels that overlap by {self.overlap}: give side >= 1, overlap < 1")

    def windows(self, shape: Sequence[int]) -> NDArray[np.int64]:
        """Tiles (t, 4) of an image (h, w): x1 y1 x2 y2, row by row. All have one size; the last end at the edge."""
        rows, columns = (self._starts(int(length)) for length in shape[:2])
        height, width = (min(self.side, int(length)) for length in shape[:2])
        return np.array([(x, y, x + width, y + height) for y in rows for x in columns], np.int64)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an image (h, w) is one tile."""
        return max(shape[:2]) <= self.side

    def find_all(
        self, images: Sequence[NDArray[np.uint8]], find: Find, *, batch: int, max_det: int, agnostic: bool = False
    ) -> list[Tensor]:
        """Detections of images, (n, 6) in pixels of each; those that fit into a tile are found as without tiles.

        Args:
            images: (h, w, 3) uint8 BGR each.
            find: gives (n, 6) x1 y1 x2 y2 score class of each of several pictures, in their pixels.
            batch: tiles that it gets at once, at most.
            max_det: detections of an image, at most.
            agnostic: detections of two classes may be one object.
        """
        whole = [image for image in images if self.fits(image.shape)]
        found = iter(find(whole) if whole else [])
        return [
            next(found)
            if self.fits(image.shape)
            else self.find(image, find, batch=batch, max_det=max_det, agnostic=agnostic)
            for image in images
        ]

    def find(self, image: NDArray[np.uint8], find: Find, *, batch: int, max_det: int, agnostic: bool = False) -> Tensor:
        """Detections (n, 6) of one image by those of its tiles, best score first; arguments as for `find_all`."""
        windows = self.windows(image.shape)
        tiles = [image[y1:y2, x1:x2] for x1, y1, x2, y2 in windows.tolist()]
        found = [rows for i in range(0, len(tiles), batch) for rows in find(tiles[i : i + batch])]
        return merged(found, windows, image.shape, agnostic=agnostic)[:max_det]

    def _starts(self, length: int) -> list[int]:
        if length <= self.side:
            return [0]
        step = max(int(self.side * (1 - self.overlap)), 1)
        return [*range(0, length - self.side, step), length - self.side]


def merged(
    found: Sequence[Tensor], windows: NDArray[np.int64], shape: Sequence[int], *, agnostic: bool = False
) -> Tensor:
    """Detections of an image from those of its tiles, by the rule at the head of this file.

    Args:
        found: (n, 6) for each tile, x1 y1 x2 y2 in pixels of the tile, score, class.
        windows: (t, 4) where the tiles lie.
        shape: (h, w) of the image.
        agnostic: detections of two classes may be one object.

    Returns:
        (m, 6) in pixels of the image, best score first.
    """
    placed = [_moved(rows, window) for rows, window in zip(found, windows, strict=True)]
    first = np.cumsum([0, *(len(rows) for rows in placed)])
    pairs = [
        _pairs(placed[a], placed[b], windows[a], windows[b], agnostic) + first[[a, b]]
        for a, b in combinations(range(len(placed)), 2)
    ]
    rows = torch.cat(placed)
    cut = torch.cat([_cut(part, window, shape) for part, window in zip(placed, windows, strict=True)])
    linked = np.concatenate([np.zeros((0, 2), np.int64), *pairs])
    graph = coo_array((np.ones(len(linked)), (linked[:, 0], linked[:, 1])), shape=(len(rows), len(rows)))
    label = connected_components(graph, directed=False)[1] if len(rows) else np.zeros(0, np.int64)
    several = np.bincount(label)[label] > 1  # most objects are seen once, and stay as they are
    joined = [_fused(rows[members], cut[members])[None] for members in _groups(label, several)]
    objects = torch.cat([rows[~several], *joined])
    return objects[objects[:, 4].argsort(descending=True, stable=True)]


def _moved(rows: Tensor, window: NDArray[np.int64]) -> Tensor:
    offset = rows.new_tensor([*window[:2], *window[:2], 0, 0])
    return rows + offset


def _cut(rows: Tensor, window: NDArray[np.int64], shape: Sequence[int]) -> Tensor:
    """(n,) whether a box touches a border of its tile (x1 y1 x2 y2) that is none of the image."""
    x1, y1, x2, y2 = window.tolist()
    near_x, near_y = (max(EDGE * side, NEAREST) for side in (x2 - x1, y2 - y1))
    touches = torch.stack(
        [rows[:, 0] <= x1 + near_x, rows[:, 1] <= y1 + near_y, rows[:, 2] >= x2 - near_x, rows[:, 3] >= y2 - near_y], 1
    )
    inner = torch.tensor([x1 > 0, y1 > 0, x2 < shape[1], y2 < shape[0]])
    return (touches & inner).any(1)


def _pairs(
    a: Tensor, b: Tensor, window_a: NDArray[np.int64], window_b: NDArray[np.int64], agnostic: bool
) -> NDArray[np.int64]:
    """(k, 2) rows of two tiles that are the same object: each row once, the largest overlaps first."""
    low, high = np.maximum(window_a[:2], window_b[:2]), np.minimum(window_a[2:], window_b[2:])
    if (low >= high).any() or not len(a) or not len(b):
        return np.zeros((0, 2), np.int64)
    overlap = pairwise_iou(_inside(a, low, high), _inside(b, low, high))
    if not agnostic:
        overlap = overlap * (a[:, None, 5] == b[None, :, 5])
    of_a, of_b = (overlap > SAME).nonzero(as_tuple=True)
    order = overlap[of_a, of_b].argsort(descending=True, stable=True)
    taken_a, taken_b, pairs = set[int](), set[int](), []
    for i, j in zip(of_a[order].tolist(), of_b[order].tolist(), strict=True):
        if i not in taken_a and j not in taken_b:
            taken_a.add(i)
            taken_b.add(j)
            pairs.append((i, j))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _inside(rows: Tensor, low: NDArray[np.int64], high: NDArray[np.int64]) -> Tensor:
    """(n, 4) the parts of boxes inside a rectangle; those outside have no area."""
    lowest, highest = torch.as_tensor(low).to(rows), torch.as_tensor(high).to(rows)
    corners = rows[:, :4].reshape(-1, 2, 2)
    return torch.minimum(torch.maximum(corners, lowest), highest).reshape(-1, 4)


def _groups(label: NDArray, several: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Rows of each object that has several."""
    rows = np.flatnonzero(several)
    rows = rows[np.argsort(label[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(label[rows])) + 1) if len(rows) else []


def _fused(rows: Tensor, cut: Tensor) -> Tensor:
    """One row (6,) for the detections (n, 6) of an object."""
    best = rows[rows[:, 4].argmax()].clone()
    whole = rows[~cut]
    if len(whole):
        best[:4] = whole[whole[:, 4].argmax(), :4]
    else:
        best[:2], best[2:4] = rows[:, :2].amin(0), rows[:, 2:4].amax(0)
    return best
