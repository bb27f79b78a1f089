"""Multi-scale training: the size of a whole batch, chosen for each step."""

from __future__ import annotations

from eyas.augment.random import Purpose, generator


def batch_size_px(imgsz: int, multi_scale: float, stride: int, seed: int, epoch: int, step: int) -> int:
    """Longest side of the batch at one step (spec core E.9): a pure function of (seed, epoch, step).

    Args:
        imgsz: nominal size S in pixels.
        multi_scale: range f; sizes are uniform over the integers [max(stride, S(1-f)), S(1+f)+stride), floored to the
            stride.
        stride: largest stride of the model in pixels.
        seed, epoch, step: name the step, `step` counts within the epoch.

    Returns:
        Size in pixels, a multiple of `stride`; `imgsz` itself when `multi_scale` is 0.
    """
    if multi_scale <= 0:
        return imgsz
    low, high = smallest_px(imgsz, multi_scale, stride), int(imgsz * (1 + multi_scale) + stride)
    drawn = int(generator(Purpose.SIZE, seed=seed, epoch=epoch, position=step).integers(low, high))
    return max(drawn // stride, 1) * stride


def smallest_px(imgsz: int, multi_scale: float, stride: int) -> int:
    """The shortest side in pixels that `batch_size_px` draws from; what it returns is floored to the stride."""
    return max(stride, int(imgsz * (1 - multi_scale)))
