"""How pixels are normalised for networks that were pre-trained so: mean and standard deviation of colours in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

PixelNorm: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of red, green and blue."""

IMAGENET: PixelNorm = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: PixelNorm = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def per_channel(values: Sequence[float], ch: int) -> list[float]:
    """Return a value for each of ``ch`` channels: those of colours, or for other images, grey ones too, their mean."""
    return list(values) if ch == len(values) else [sum(values) / len(values)] * ch
