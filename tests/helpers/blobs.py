"""A network that really finds something: rectangles of pure colour, exactly where they are."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

NAMES = {0: "red", 1: "green"}
COLOURS = {0: (0, 0, 255), 1: (0, 255, 0)}  # BGR
MOST = 300

Rectangle = tuple[int, int, int, int, int]  # x1 y1 x2 y2 class


def painted(shape: tuple[int, int], rectangles: Sequence[Rectangle]) -> NDArray[np.uint8]:
    """Return an image (h, w, 3) BGR with rectangles on black."""
    image = np.zeros((*shape, 3), np.uint8)
    for x1, y1, x2, y2, cls in rectangles:
        image[y1:y2, x1:x2] = COLOURS[cls]
    return image


def seen(image: NDArray[np.uint8]) -> Tensor:
    """Return (n, 6) of the rectangles in an image (h, w, 3) BGR; larger ones have a higher score."""
    rows = []
    for cls, colour in COLOURS.items():
        mask = (np.abs(image.astype(int) - colour) < 40).all(-1).astype(np.uint8)
        for x, y, w, h, area in cv2.connectedComponentsWithStats(np.asarray(mask), connectivity=4)[2][1:].tolist():
            rows.append([x, y, x + w, y + h, 0.5 + min(area / 1e5, 0.4), cls])
    return torch.tensor(sorted(rows, key=lambda row: -row[4])).float().reshape(-1, 6)


class Blobs(nn.Module):
    """Answers as an end-to-end detector does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.nc, self.names, self.end2end, self.stretch = 2, NAMES, True, False
        self.stride, self.side = torch.tensor([32.0]), None
        self.head = SimpleNamespace(max_det=MOST, agnostic_nms=False)

    def set_head_attr(self, **settings: Any) -> None:
        self.end2end = settings.pop("end2end")
        vars(self.head).update(settings)

    def in_pixels(self, found: Tensor, height: int, width: int) -> Tensor:
        return found

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        rows = torch.zeros(len(images), MOST, 6)
        for image, row in zip(images, rows, strict=True):
            found = seen((image.permute(1, 2, 0).flip(-1) * 255).round().byte().numpy())
            row[: len(found)] = found
        return rows, {}
