"""``ultralytics.utils.instance``: the boxes of one image, in a form and a unit that may be changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyas.augment.geometry import box_areas, clip_to
from eyas.compat.answers import ops
from eyas.names import did_you_mean

CONVERT = {
    ("xywh", "xyxy"): ops.xywh2xyxy,
    ("ltwh", "xyxy"): ops.ltwh2xyxy,
    ("xyxy", "xywh"): ops.xyxy2xywh,
    ("ltwh", "xywh"): ops.ltwh2xywh,
    ("xyxy", "ltwh"): ops.xyxy2ltwh,
    ("xywh", "ltwh"): ops.xywh2ltwh,
}
FORMATS = ("xyxy", "xywh", "ltwh")


class Instances:
    """Boxes of one image; Eyas has neither polygons nor keypoints.

    Args:
        bboxes: (n, 4).
        segments, keypoints: None, or nothing in them.
        bbox_format: ``"xyxy"`` corners, ``"xywh"`` centre and size, ``"ltwh"`` upper left corner and size.
        normalized: in shares of the image, not in pixels.

    Attributes:
        bboxes: (n, 4) float32, in ``format``. normalized: as the argument.
    """

    segments: NDArray[Any] = np.zeros((0, 0, 2), np.float32)
    keypoints: None = None

    def __init__(
        self,
        bboxes: NDArray,
        segments: Sequence[Any] | NDArray | None = None,
        keypoints: NDArray | None = None,
        bbox_format: str = "xywh",
        normalized: bool = True,
    ) -> None:
        for name, values in (("segments", segments), ("keypoints", keypoints)):
            if values is not None and len(values):
                raise ValueError(f"{name} are not supported: Eyas detects boxes. Leave them out.")
        if bbox_format not in FORMATS:
            raise ValueError(
                f"bbox_format={bbox_format!r}: use one of {', '.join(FORMATS)}.{did_you_mean(bbox_format, FORMATS)}"
            )
        self.bboxes: NDArray[np.float32] = np.array(bboxes, np.float32).reshape(-1, 4)
        self.format, self.normalized = bbox_format, normalized

    def __len__(self) -> int:
        return len(self.bboxes)

    def __getitem__(self, index: Any) -> Instances:
        """The chosen boxes; an integer gives one."""
        return Instances(self.bboxes[index].reshape(-1, 4), bbox_format=self.format, normalized=self.normalized)

    @property
    def bbox_areas(self) -> NDArray[np.float32]:
        """(n,) areas, in pixels or shares."""
        return box_areas(self._as("xyxy"))

    def convert_bbox(self, format: str) -> None:
        """Change the form of the boxes."""
        self.bboxes, self.format = self._as(format), format

    def scale(self, scale_w: float, scale_h: float, bbox_only: bool = False) -> None:
        """Multiply by factors."""
        self.bboxes = self.bboxes * np.array([scale_w, scale_h, scale_w, scale_h], np.float32)

    def normalize(self, w: float, h: float) -> None:
        """Change pixels of an image of ``w`` x ``h`` to shares of it."""
        if not self.normalized:
            self.scale(1 / w, 1 / h)
            self.normalized = True

    def denormalize(self, w: float, h: float) -> None:
        """Change shares of an image of ``w`` x ``h`` to pixels."""
        if self.normalized:
            self.scale(w, h)
            self.normalized = False

    def add_padding(self, padw: float, padh: float) -> None:
        """Move boxes in pixels to the right and down."""
        if self.normalized:
            raise ValueError("padding is in pixels: call denormalize(w, h) before.")
        self._on_corners(lambda corners: corners + np.array([padw, padh, padw, padh], np.float32))

    def fliplr(self, w: float) -> None:
        """Mirror left and right in an image ``w`` wide (1 for shares)."""
        self._on_corners(lambda c: np.stack((w - c[:, 2], c[:, 1], w - c[:, 0], c[:, 3]), 1))

    def flipud(self, h: float) -> None:
        """Mirror top and bottom in an image ``h`` high (1 for shares)."""
        self._on_corners(lambda c: np.stack((c[:, 0], h - c[:, 3], c[:, 2], h - c[:, 1]), 1))

    def clip(self, w: float, h: float) -> None:
        """Limit boxes to an image of ``w`` x ``h``."""
        self._on_corners(lambda corners: clip_to(corners, (0, 0, w, h)))

    def remove_zero_area_boxes(self) -> NDArray[np.bool_]:
        """Drop boxes without an area; returns which were kept (n,)."""
        good = self.bbox_areas > 0
        self.bboxes = self.bboxes[good]
        return good

    def update(self, bboxes: NDArray, segments: Any = None, keypoints: Any = None) -> None:
        """Replace the boxes by others of the same form and unit."""
        self.bboxes = np.array(bboxes, np.float32).reshape(-1, 4)

    @classmethod
    def concatenate(cls, instances_list: Sequence[Instances], axis: int = 0) -> Instances:
        """Return the boxes of several, in the form and unit of the first, which all must have."""
        first = instances_list[0]
        if any((other.format, other.normalized) != (first.format, first.normalized) for other in instances_list):
            raise ValueError("boxes of different forms or units cannot be joined: call convert_bbox() and normalize().")
        joined = np.concatenate([other.bboxes for other in instances_list])
        return cls(joined, bbox_format=first.format, normalized=first.normalized)

    def _as(self, form: str) -> NDArray[np.float32]:
        if form not in FORMATS:
            raise ValueError(
                f"{form!r} is no form of boxes: use one of {', '.join(FORMATS)}.{did_you_mean(form, FORMATS)}"
            )
        return self.bboxes if form == self.format else CONVERT[self.format, form](self.bboxes)

    def _on_corners(self, change: Any) -> None:
        form = self.format
        self.convert_bbox("xyxy")
        self.bboxes = change(self.bboxes).astype(np.float32)
        self.convert_bbox(form)
