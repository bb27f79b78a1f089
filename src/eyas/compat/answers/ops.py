"""``ultralytics.utils.ops``: boxes in every form, for arrays and tensors, and suppression of what overlaps.

``xyxy`` is two corners, ``xywh`` centre and size, ``ltwh`` the upper left corner and size; a trailing ``n`` means
shares of the image. Boxes lie in the last dimension.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eyas import boxes as geometry
from eyas.augment.letterbox import fit_letterbox
from eyas.models.postprocess import MAX_CANDIDATES, postprocess

P = ParamSpec("P")
Array = Tensor | NDArray[Any]
Convert = Callable[Concatenate[Any, P], Any]


def of_either_kind(convert: Callable[Concatenate[Tensor, P], Tensor]) -> Convert[P]:
    """Let a function of a floating tensor (..., 4) take arrays as well, and give back what it was given.

    Raises:
        ValueError: there are not four numbers to a box.
    """

    @wraps(convert)
    def call(boxes: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        if np.shape(boxes)[-1:] != (4,):
            raise ValueError(
                f"boxes must have shape (..., 4), not {tuple(np.shape(boxes))}: pass boxes[..., :4] and put other "
                "columns back afterwards."
            )
        if isinstance(boxes, Tensor):
            return convert(boxes if boxes.is_floating_point() else boxes.float(), *args, **kwargs)
        array = np.asarray(boxes)
        array = array if array.dtype.kind == "f" else array.astype(np.float32)
        return convert(torch.from_numpy(np.ascontiguousarray(array)), *args, **kwargs).numpy()

    return call


xyxy2xywh = of_either_kind(geometry.xyxy_to_cxcywh)
xywh2xyxy = of_either_kind(geometry.cxcywh_to_xyxy)


@of_either_kind
def xywhn2xyxy(x: Tensor, w: float = 640, h: float = 640, padw: float = 0, padh: float = 0) -> Tensor:
    """Shares of an image of ``w`` x ``h`` pixels (..., 4) to corners in pixels, moved by the padding."""
    corners = geometry.cxcywh_to_xyxy(x) * x.new_tensor([w, h, w, h])
    return corners + x.new_tensor([padw, padh, padw, padh])


@of_either_kind
def xyxy2xywhn(x: Tensor, w: float = 640, h: float = 640, clip: bool = False, eps: float = 0.0) -> Tensor:
    """Corners in pixels (..., 4) to shares of the image; ``clip`` limits them to it, less ``eps`` pixels."""
    inside = geometry.clip_boxes(x, (h - eps, w - eps)) if clip else x  # type: ignore[arg-type]  # fractions will do
    return geometry.xyxy_to_cxcywh(inside) / x.new_tensor([w, h, w, h])


@of_either_kind
def xywh2ltwh(x: Tensor) -> Tensor:
    """Centre and size (..., 4) to corner and size."""
    return torch.cat((x[..., :2] - x[..., 2:4] / 2, x[..., 2:4]), -1)


@of_either_kind
def ltwh2xywh(x: Tensor) -> Tensor:
    """Corner and size (..., 4) to centre and size."""
    return torch.cat((x[..., :2] + x[..., 2:4] / 2, x[..., 2:4]), -1)


@of_either_kind
def xyxy2ltwh(x: Tensor) -> Tensor:
    """Two corners (..., 4) to corner and size."""
    return torch.cat((x[..., :2], x[..., 2:4] - x[..., :2]), -1)


@of_either_kind
def ltwh2xyxy(x: Tensor) -> Tensor:
    """Corner and size (..., 4) to two corners."""
    return torch.cat((x[..., :2], x[..., :2] + x[..., 2:4]), -1)


def clip_boxes(boxes: Array, shape: Sequence[int]) -> Array:
    """Limit corners (..., 4) in pixels to an image of ``shape`` (height, width), in place; returns them."""
    boxes[..., :4] = of_either_kind(geometry.clip_boxes)(boxes[..., :4], shape)
    return boxes


def scale_boxes(
    img1_shape: Sequence[int],
    boxes: Array,
    img0_shape: Sequence[int],
    ratio_pad: Sequence[Sequence[float]] | None = None,
    padding: bool = True,
    xywh: bool = False,
) -> Array:
    """Return boxes (..., 4 or more columns) of the network's input as boxes of the original image, clipped to it.

    Args:
        img1_shape: (height, width) of the input.
        boxes: corners in its pixels, or centre and size with ``xywh``, which are not clipped.
        img0_shape: (height, width) of the image.
        ratio_pad: ((gain of height, of width), (left, top)) as a batch holds it; None for a letterboxed image.
        padding: whether the image stands in the middle of the input; else at its upper left.
    """
    (gain_h, gain_w), offset = ratio_pad or letterboxed(img1_shape, img0_shape)
    left, top = offset if padding else (0.0, 0.0)
    if not xywh:
        mapped = of_either_kind(geometry.unletterbox)(boxes[..., :4], ((gain_h, gain_w), (left, top)), img0_shape)
    else:
        mapped = of_either_kind(_unscaled)(boxes[..., :4], (left, top, 0, 0), (gain_w, gain_h, gain_w, gain_h))
    result = boxes.clone() if isinstance(boxes, Tensor) else np.array(boxes, dtype=mapped.dtype)
    result[..., :4] = mapped
    return result


def letterboxed(shape: Sequence[int], image: Sequence[int]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return ((gain of height, of width), (left, top)) of an image (h, w) letterboxed into ``shape`` (H, W)."""
    fit = fit_letterbox((int(image[0]), int(image[1])), (int(shape[0]), int(shape[1])))
    return (fit.height / image[0], fit.width / image[1]), (float(fit.left), float(fit.top))


def _unscaled(boxes: Tensor, offset: Sequence[float], gain: Sequence[float]) -> Tensor:
    return (boxes - boxes.new_tensor(offset)) / boxes.new_tensor(gain)


def non_max_suppression(
    prediction: Any,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    classes: Sequence[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    labels: Sequence[Any] = (),
    max_det: int = 300,
    nc: int = 0,
    max_time_img: float = 0.05,
    max_nms: int = MAX_CANDIDATES,
    max_wh: int = 7680,
    rotated: bool = False,
    end2end: bool = False,
    return_idxs: bool = False,
) -> list[Tensor]:
    """Return one tensor (n, 6) for each image: x1 y1 x2 y2, score, class; best score first.

    Args:
        prediction: (B, 4 + C, A) centre, size and class scores, or what a model returned in evaluation with it first;
            (B, k, 6) of the branch without suppression is only filtered.
        conf_thres, iou_thres: lowest score, and overlap above which the lower score goes; in [0, 1].
        classes: ids to keep. agnostic: classes suppress each other. multi_label: a row for each class above the score.
        max_det: most rows of an image. nc: classes, told from the prediction where it is 0.
        max_time_img, max_wh: kept for callers of the incumbent's function: nothing here stops at a time limit, and
            classes are kept apart exactly, not by moving their boxes.

    Raises:
        ValueError: a threshold outside [0, 1], or what is for other tasks: ``labels``, ``rotated``, masks;
            ``return_idxs``.
    """
    for name, value in (("conf_thres", conf_thres), ("iou_thres", iou_thres)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value} must be between 0 and 1.")
    preds: Tensor = prediction[0] if isinstance(prediction, list | tuple) else prediction
    without = end2end or preds.shape[-1] == 6
    if return_idxs:
        raise ValueError("return_idxs=True is not supported: anchors are not counted; leave it out.")
    others = {"labels": len(labels) > 0, "rotated": rotated, "max_nms": max_nms < MAX_CANDIDATES}
    others["nc"] = bool(nc) and not without and preds.shape[1] != 4 + nc
    if any(others.values()):
        name = next(name for name, asked in others.items() if asked)
        raise ValueError(
            f"{name} is not supported: boxes (B, 4 + classes, anchors) go in, up to {MAX_CANDIDATES} of an image."
        )
    return postprocess(
        preds,
        end2end=without,
        conf=conf_thres,
        iou=iou_thres,
        max_det=max_det,
        agnostic=agnostic,
        multi_label=multi_label,
        classes=classes,
    )


def make_divisible(x: float, divisor: int | Tensor) -> int:
    """Return the lowest multiple of ``divisor`` (the largest of several) that is at least ``x``."""
    step = int(divisor.max()) if isinstance(divisor, Tensor) else divisor
    return -int(-x // step) * step


class Profile:
    """Seconds that blocks take, on the GPU too: ``with profile: ...``; ``dt`` is the latest, ``t`` their sum."""

    def __init__(self, t: float = 0.0, device: torch.device | None = None) -> None:
        self.t, self.dt, self.device = t, 0.0, device

    def __enter__(self) -> Profile:
        self.start = self.time()
        return self

    def __exit__(self, *exception: object) -> None:
        self.dt = self.time() - self.start
        self.t += self.dt

    def time(self) -> float:
        """Return seconds on a clock, once the device has done what it was told."""
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
