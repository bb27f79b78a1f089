"""Images of any size -> their detections, in pixels of each image: what prediction and tiled validation share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eyas.augment.letterbox import letterbox_into
from eyas.boxes import unletterbox
from eyas.data.decode import resize
from eyas.evaluate.inference import StageClock
from eyas.models.postprocess import postprocess


class Finder:
    """Runs a network on images; the caller has made it ready (`inference_state`).

    Args:
        network: a `Detector`, or another `Network`.
        imgsz: length of the longer side of the network's input in pixels, rounded up to a multiple of the stride.
        conf: lowest score that is returned, in [0, 1).
        iou: NMS threshold of the one-to-many branch.
        max_det: most detections per image.
        agnostic: suppression across classes.
        multi_label: whether an anchor may give a row for every class, not only its best.
        classes: only these class ids; None for all.
        amp_dtype: autocast type, or None for full precision.
    """

    def __init__(
        self,
        network: Any,
        *,
        imgsz: int,
        conf: float,
        iou: float,
        max_det: int,
        agnostic: bool,
        multi_label: bool,
        classes: Sequence[int] | None = None,
        amp_dtype: torch.dtype | None = None,
    ) -> None:
        self.network = network
        self.stride = int(max(network.stride))
        self.imgsz = math.ceil(imgsz / self.stride) * self.stride
        self.amp_dtype = amp_dtype
        self.settings: dict[str, Any] = {"conf": conf, "iou": iou, "max_det": max_det, "agnostic": agnostic}
        self.settings |= {"multi_label": multi_label, "classes": classes}

    def __call__(self, images: Sequence[NDArray[np.uint8]], device: torch.device, clock: StageClock) -> list[Tensor]:
        """Detections of images in one forward pass.

        Args:
            images: (h, w, 3) uint8 BGR each. Those of one shape are padded no more than the stride asks for; mixed
                shapes share a square.
            device: where the network is.
            clock: takes the time of each stage.

        Returns:
            (n, 6) on the CPU for each image: x1 y1 x2 y2 in pixels of the image, score, class; best score first.
        """
        with clock("preprocess"):
            inputs, ratio_pads = self.inputs(images)
        with clock("inference"):
            pixels = inputs.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
                preds = self.network(pixels.float() / 255)[0].float()
            preds = self.network.in_pixels(preds, *pixels.shape[-2:])
        with clock("postprocess"):
            rows = [row.cpu() for row in postprocess(preds, end2end=self.network.end2end, **self.settings)]
            return [
                torch.cat([unletterbox(row[:, :4], ratio_pad, image.shape[:2]), row[:, 4:]], dim=1)
                for row, ratio_pad, image in zip(rows, ratio_pads, images, strict=True)
            ]

    def inputs(self, images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, list[Any]]:
        """One (B, 3, H, W) uint8 RGB tensor, letterboxed or stretched; each image's ((gain_h, gain_w), (left, top))."""
        height, width = self._input_shape([image.shape[:2] for image in images])
        out = np.empty((len(images), height, width, 3), dtype=np.uint8)
        ratio_pads = []
        for image, target in zip(images, out, strict=True):
            h, w = image.shape[:2]
            if self.network.stretch:
                image = resize(image, (height, width))
            fit = letterbox_into(image, target, scale_up=True)
            ratio_pads.append(((fit.height / h, fit.width / w), (fit.left, fit.top)))
        return torch.from_numpy(out).permute(0, 3, 1, 2), ratio_pads

    def _input_shape(self, shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """(H, W): the smallest multiple of the stride that holds images of one shape; a square for mixed ones, and for
        a network that takes nothing else."""
        if len(set(shapes)) > 1 or self.network.stretch or self.network.side:
            return self.imgsz, self.imgsz
        h, w = shapes[0]
        ratio = self.imgsz / max(h, w)
        height, width = (math.ceil(max(round(side * ratio), 1) / self.stride) * self.stride for side in (h, w))
        return height, width
