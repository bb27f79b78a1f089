"""Multi-scale training: the size of a whole batch, chosen for each step."""

from __future__ import annotations

import math

from eyas.augment.random import Purpose, generator

MOST_SIZES = 7  # every new size costs a choice of kernels, and compiled steps a compilation


def batch_size_px(imgsz: int, multi_scale: float, stride: int, seed: int, epoch: int, step: int) -> int:
    """Longest side of the batch at one step (spec core E.9): a pure function of (seed, epoch, step).

    Args:
        imgsz: nominal size S in pixels.
        multi_scale: range f; sizes are uniform over the integers [max(stride, S(1-f)), S(1+f)+stride), floored to the
            stride. Where these would be more than `MOST_SIZES`, to the nearest of fewer, evenly spaced around S.
        stride: largest stride of the model in pixels.
        seed, epoch, step: name the step, `step` counts within the epoch.

    Returns:
        Size in pixels, a multiple of `stride`; `imgsz` itself when `multi_scale` is 0.
    """
    if multi_scale <= 0:
        return imgsz
    low, high = smallest_px(imgsz, multi_scale, stride), int(imgsz * (1 + multi_scale) + stride)
    drawn = int(generator(Purpose.SIZE, seed=seed, epoch=epoch, position=step).integers(low, high))
    return _of_few(drawn, imgsz, multi_scale, stride)


def smallest_px(imgsz: int, multi_scale: float, stride: int) -> int:
    """The shortest side in pixels that `batch_size_px` returns."""
    return _of_few(max(stride, int(imgsz * (1 - multi_scale))), imgsz, multi_scale, stride)


def _of_few(drawn: int, imgsz: int, multi_scale: float, stride: int) -> int:
    """The size of at most `MOST_SIZES` that stands for a drawn one."""
    size = max(drawn // stride, 1) * stride
    low, high = imgsz * (1 - multi_scale), imgsz * (1 + multi_scale) + stride
    step = stride * math.ceil((int(high - 1) // stride - max(int(low) // stride, 1) + 1) / MOST_SIZES)
    return size if step == stride else max(imgsz + step * round((size - imgsz) / step), stride)
