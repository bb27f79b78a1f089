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
    low, high = _range(imgsz, multi_scale, stride)
    drawn = int(generator(Purpose.SIZE, seed=seed, epoch=epoch, position=step).integers(low, high))
    return _one_of_few(drawn, imgsz, (low, high), stride)


def smallest_px(imgsz: int, multi_scale: float, stride: int) -> int:
    """The shortest side in pixels that `batch_size_px` returns."""
    low, high = _range(imgsz, multi_scale, stride)
    return _one_of_few(low, imgsz, (low, high), stride)


def every_px(imgsz: int, multi_scale: float, stride: int) -> tuple[int, ...]:
    """The sides in pixels that `batch_size_px` returns, from the shortest."""
    if multi_scale <= 0:
        return (imgsz,)
    low, high = _range(imgsz, multi_scale, stride)
    return tuple(sorted({_one_of_few(drawn, imgsz, (low, high), stride) for drawn in range(low, high)}))


def _range(imgsz: int, multi_scale: float, stride: int) -> tuple[int, int]:
    """The integers that sizes are drawn from: the first one, and the one after the last."""
    return max(stride, int(imgsz * (1 - multi_scale))), int(imgsz * (1 + multi_scale) + stride)


def _one_of_few(drawn: int, imgsz: int, drawn_from: tuple[int, int], stride: int) -> int:
    """The size of at most `MOST_SIZES` that stands for a drawn one."""
    low, high = drawn_from
    size = drawn // stride * stride
    step = stride * math.ceil(((high - 1) // stride - low // stride + 1) / MOST_SIZES)
    return size if step == stride else max(imgsz + step * round((size - imgsz) / step), stride)
