"""Boxes of many images in flat arrays, and where each image lies in the network's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BoxList:
    """n boxes of a batch or a split.

    Attributes:
        boxes: (n, 4) float32 xyxy.
        cls: (n,) int64 class ids.
        image: (n,) int64 index of the image.
        score: (n,) float32; 1 for labels.
    """

    boxes: NDArray[np.float32]
    cls: NDArray[np.int64]
    image: NDArray[np.int64]
    score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.boxes)

    def with_boxes(self, boxes: NDArray[np.float32]) -> BoxList:
        """The same objects with other coordinates."""
        return replace(self, boxes=boxes)

    def where(self, keep: NDArray[np.bool_]) -> BoxList:
        """The chosen rows."""
        return BoxList(self.boxes[keep], self.cls[keep], self.image[keep], self.score[keep])

    def shifted(self, images: int) -> BoxList:
        """The same boxes with image indices that start `images` later."""
        return replace(self, image=self.image + images)


def no_boxes() -> BoxList:
    """An empty list."""
    integers = np.zeros(0, np.int64)
    return BoxList(np.zeros((0, 4), np.float32), integers, integers, np.zeros(0, np.float32))


def joined(parts: Sequence[BoxList]) -> BoxList:
    """Several lists in one."""
    parts = parts or [no_boxes()]
    return BoxList(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.cls for part in parts]),
        np.concatenate([part.image for part in parts]),
        np.concatenate([part.score for part in parts]),
    )


class Frame:
    """Where the B images of a batch lie in the network's input.

    Attributes:
        gain: (B, 2) input pixels per original pixel, x and y.
        pad: (B, 2) left and top padding in input pixels.
        size: (B, 2) width and height of the original images.
    """

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self.gain = np.array([gain[::-1] for gain, _ in batch["ratio_pad"]], np.float32).reshape(-1, 2)
        self.pad = np.array([pad for _, pad in batch["ratio_pad"]], np.float32).reshape(-1, 2)
        self.size = np.array([shape[::-1] for shape in batch["ori_shape"]], np.float32).reshape(-1, 2)

    def to_original(self, found: BoxList) -> BoxList:
        """Boxes in pixels of the original images, clipped to them; `eyas.boxes.unletterbox` for many images at once."""
        i = found.image
        corners = (found.boxes.reshape(-1, 2, 2) - self.pad[i, None]) / self.gain[i, None]
        boxes = np.clip(corners, 0, self.size[i, None]).reshape(-1, 4)
        return found.with_boxes(boxes.astype(np.float32, copy=False))


@dataclass(frozen=True)
class Areas:
    """m areas in which some classes were not annotated.

    Attributes:
        places: where; `cls` is the row of `classes`.
        classes: (S, nc) bool, which classes were not annotated; the same for all batches of a split.
    """

    places: BoxList
    classes: NDArray[np.bool_]

    def by_class(self) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Boxes (k, 4), class ids (k,) and images (k,), each area as often as it has classes."""
        area, cls = np.nonzero(self.classes[self.places.cls])
        return self.places.boxes[area], cls, self.places.image[area]


@dataclass(frozen=True)
class Split:
    """Everything found in a split, in pixels of the original images.

    Attributes:
        predicted, truth: detections and labels.
        areas: what was not annotated.
        size: (images, 2) width and height of each image.
        files: path of each image.
    """

    predicted: BoxList
    truth: BoxList
    areas: Areas
    size: NDArray[np.float32]
    files: Sequence[str]
