"""Applying `SampleParams` with torch, on the device that trains: colours, the dearest part for a worker.

Legend: ``B`` images, ``H`` x ``W`` pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eyas.nn.constants import constants

_TINY = torch.finfo(torch.float32).tiny
# By hue h in sixths of the circle, red is value - chroma * (1 - u) with u = clamp(|(h + 5) mod 6 - 2| - 1, 0, 1); green
# and blue are the same, a third and two thirds of the circle further on.
_SHIFTS = (5.0, 3.0, 1.0)


def jitter_hsv(images: Tensor, gains: Tensor) -> Tensor:
    """Return images with other colours, in their memory layout; the same as `eyas.augment.color.jitter_hsv`, unrounded.

    That one keeps hue in steps of two degrees and all else in 256 steps, so both differ by up to a few of 255 levels.

    Args:
        images: (B, 3, H, W) float32 RGB in [0, 1].
        gains: (B, 3) float32: what is added to the hue, in units of the full circle, and by which share saturation and
            value grow.
    """
    turn, saturate, brighten = (gain[:, None, None] for gain in gains.unbind(1))
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    is_red, is_green = value == red, value == green
    ahead = torch.where(is_red, green - blue, torch.where(is_green, blue - red, red - green))
    hue = ahead / chroma.clamp(min=_TINY) + torch.where(is_red, 0.0, torch.where(is_green, 2.0, 4.0)) + 6 * turn
    saturation = (chroma / value.clamp(min=_TINY) * (1 + saturate)).clamp_(0, 1)
    value = (value * (1 + brighten)).clamp_(0, 1)
    chroma = (value * saturation)[:, None]
    # In place, in the layout of the images: the eight passes over three channels are most of the work.
    shifts = constants(_SHIFTS, hue).view(1, 3, 1, 1)
    share = torch.add(hue[:, None], shifts, out=torch.empty_like(images))
    share.remainder_(6).sub_(2).abs_().sub_(1).clamp_(0, 1)
    return share.mul_(chroma).add_(value[:, None] - chroma)
