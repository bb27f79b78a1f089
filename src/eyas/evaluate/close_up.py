"""A closer look, tile by tile, at the images of a validation that are larger than a tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eyas.data.decode import read_image
from eyas.data.depth import White
from eyas.evaluate.finder import Finder
from eyas.evaluate.inference import StageClock
from eyas.evaluate.tiling import Tiling


@dataclass(frozen=True)
class CloseUp:
    """How large images are measured.

    Attributes:
        tiling: how they are cut; prediction does the same.
        imgsz: length of the longer side of the network's input for a tile.
        white: what is white in images of more than 8 bits.
    """

    tiling: Tiling
    imgsz: int
    white: White | None = None

    def __call__(
        self,
        find: Finder,
        batch: Mapping[str, Any],
        detections: Sequence[Tensor],
        *,
        max_det: int,
        agnostic: bool,
        device: torch.device,
        clock: StageClock,
    ) -> list[Tensor]:
        """Detections of a batch, where those of large images are found anew in tiles of their files.

        Args:
            find: runs the network on tiles, `imgsz` included.
            batch: as the loader made it.
            detections: (n, 6) for each image, in pixels of the network's input; those of images that are one tile stay.
            max_det: detections of an image, at most.
            agnostic: detections of two classes may be one object.
            device: where the network is.
            clock: takes the time of each stage.

        Returns:
            (n, 6) for each image, as given.
        """

        def find_in(tiles: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
            return find(tiles, device, clock)

        found = list(detections)
        for i, shape in enumerate(batch["ori_shape"]):
            if not self.tiling.fits(shape):
                image = read_image(batch["im_file"][i], self.white)
                rows = self.tiling.find(image, find_in, batch=len(found), max_det=max_det, agnostic=agnostic)
                found[i] = _in_input(rows, batch["ratio_pad"][i]).to(detections[i])
        return found


def _in_input(rows: Tensor, ratio_pad: Sequence[Sequence[float]]) -> Tensor:
    """Rows (n, 6) in pixels of an image, in those of the network's input: the inverse of `eyas.boxes.unletterbox`."""
    (gain_h, gain_w), (left, top) = ratio_pad
    gain, offset = rows.new_tensor([gain_w, gain_h, gain_w, gain_h]), rows.new_tensor([left, top, left, top])
    return torch.cat([rows[:, :4] * gain + offset, rows[:, 4:]], dim=1)
