"""Images of more than 8 bits: what is white in them, and how they become 8 bits.

Files of 16 bits hold values of 10, 12, 14 or 16 bits and seldom say which; files of floats go from 0 to 1, or to what
their integers did. What is white is therefore found from the values of all images of a kind in a data set together, so
that two images keep their difference in brightness; a model remembers it, and sees every later image in the same way.
Wider integers are a kind of their own: one picture of counts up to a million must not darken all those of 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

BYTE, WHOLE, REAL, WIDE = range(4)  # depth of an image: up to 8 bits, 9 to 16 bits, floats, integers of more bits
KINDS = {WHOLE: "of 9 to 16 bits", REAL: "of floats", WIDE: "of more than 16 bits"}

_TOLERANCE = 0.01  # of white: what rounding and resampling leave beyond black and white
_FAINT = 1 / 8  # of white: an image whose values stay below looks nearly black


class White(NamedTuple):
    """The value of white in images of 9 to 16 bits, of floats, and of wider integers; None where there are none."""

    whole: float | None = None
    real: float | None = None
    wide: float | None = None

    def of(self, depth: int) -> float | None:
        """White of images of this depth; None for those of up to 8 bits, and where nothing is known."""
        return {WHOLE: self.whole, REAL: self.real, WIDE: self.wide}.get(depth)

    def known_as(self, known: White | None) -> White:
        """White of the same kinds of images, as `known` has it where it does."""
        pairs = zip(self, known or self, strict=True)
        return White(*(own if own is None or given is None else given for own, given in pairs))

    def to_dict(self) -> dict[str, float]:
        """By kind, those that are known."""
        return {kind: white for kind, white in self._asdict().items() if white is not None}

    @classmethod
    def everywhere(cls, white: float) -> White:
        """The same white for every kind of values."""
        return cls(white, white, white)

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> White:
        """The inverse of `to_dict`."""
        return cls(**values)


def find_white(depths: np.ndarray, peaks: np.ndarray) -> White:
    """White of a data set.

    Args:
        depths: (N,) depth of each image.
        peaks: (N,) its largest value.
    """
    found = {depth: peaks[depths == depth] for depth in KINDS}
    return White(*(white_above(float(values.max()), depth) if len(values) else None for depth, values in found.items()))


def white_above(peak: float, depth: int) -> float:
    """The white that a largest value speaks for: that of the fewest bits, 8, 10, 12 ..., that hold it.

    Floats are white at 1 as long as they stay below, and at their own largest value where no number of bits fits.
    """
    if depth == REAL and peak <= 1 + _TOLERANCE:
        return 1.0
    bits = next(bits for bits in range(8, 1025, 2) if peak < 2.0**bits)
    white = 2.0**bits - 1
    return peak if depth == REAL and (peak < white / 4 or bits > 32) else white


def peak_of(image: np.ndarray) -> float | str:
    """The largest value of an image as it is stored, or why there can be no picture in such values."""
    if not np.isfinite(image).all():
        return "values that are not finite; fill them, for example with 0"
    low, high = float(image.min()), float(image.max())
    if low < -_TOLERANCE * abs(high):
        return f"values from {low:g} to {high:g}; shift and scale them so that black is 0"
    return max(high, 0.0)


def to_bytes(image: np.ndarray, white: float) -> np.ndarray:
    """Values of an image as uint8: black is 0, `white` and more is 255; of n bits, the highest 8 stay."""
    factor = 255 / white if image.dtype.kind == "f" else 256 / (white + 1)
    rounding = 0.5 if image.dtype.kind == "f" else 0.0
    return np.clip(image.astype(np.float64) * factor + rounding, 0, 255).astype(np.uint8)


def describe(white: White, depths: np.ndarray, peaks: np.ndarray) -> tuple[list[str], list[str]]:
    """What is white in each kind of images beyond 8 bits, and how many images that suits badly."""
    notes, doubts = [], []
    for depth, what in KINDS.items():
        values, top = peaks[depths == depth], white.of(depth)
        if not len(values) or top is None:
            continue
        notes.append(f"{len(values):,} images {what}, with values up to {values.max():.6g}: {top:.6g} is white")
        faint, beyond = values[values < top * _FAINT], int((values > top * (1 + _TOLERANCE)).sum())
        if len(faint):
            other = white_above(float(faint.max()), depth)
            doubts.append(
                f"{len(faint):,} of the images {what} stay below an eighth of white, {top:.6g}, and are nearly black; "
                f"if white is less, say so in the data YAML, such as value_range: {other:g}"
            )
        if beyond:
            doubts.append(f"{beyond:,} of the images {what} go beyond white, {top:.6g}, and are cut there")
    return notes, doubts
