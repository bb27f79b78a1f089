"""Precision, recall and F1 where another of them, or a score, is held: ``recall@precision>=0.95``, ``f1@conf>=0.4``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from eyas.metrics.detection import DetMetrics
from eyas.metrics.extra import class_curves

WANTED = ("precision", "recall", "f1")
HELD = ("precision", "recall", "conf")
_FORM = re.compile(rf"({'|'.join(WANTED)})@({'|'.join(HELD)})>=(\d*\.?\d+)")


@dataclass(frozen=True)
class Held:
    """A metric at IoU 0.5 under a condition, as a mean over classes with ground truth.

    Of each class, the threshold of the score is the one that gives most while the condition holds; a class for which
    none does has 0. A condition on the score itself is the threshold.

    Args:
        wanted: precision, recall or f1.
        held: precision, recall or conf, another one than ``wanted``.
        least: the least value of ``held``, in [0, 1].
    """

    wanted: str
    held: str
    least: Fraction
    has_main: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.wanted == self.held or not 0 <= self.least <= 1:
            raise ValueError(f"{self}: hold another one than is wanted, at a value in [0, 1].")

    def __str__(self) -> str:
        return f"{self.wanted}@{self.held}>={float(self.least):g}"

    def columns(self, names: Mapping[int, str]) -> list[str]:
        return [f"metrics/{self}(B)"]

    def __call__(self, metrics: DetMetrics) -> dict[str, float]:
        values = [self.of_class(*curve) for curve in class_curves(metrics)]
        return {self.columns(metrics.names)[0]: float(np.mean(values)) if values else 0.0}

    def of_class(self, tp: NDArray, conf: NDArray, num_targets: int) -> float:
        """Return the value of one class.

        Args:
            tp: (N,) bool.
            conf: (N,) scores, descending; equal scores pass a threshold together.
            num_targets: ground-truth boxes, > 0.
        """
        if self.held == "conf":
            shown = int(np.count_nonzero(conf >= np.float32(self.least)))
            last = np.array([shown - 1] if shown else [], np.int64)
        else:
            last = np.flatnonzero(np.append(conf[1:] != conf[:-1], True)) if len(conf) else np.zeros(0, np.int64)
        hits, found = np.cumsum(tp)[last], last + 1
        if self.held != "conf":  # in whole numbers: 19 of 20 is 0.95
            of = found if self.held == "precision" else np.full_like(found, num_targets)
            holds = hits * self.least.denominator >= of * self.least.numerator
            hits, found = hits[holds], found[holds]
        values = {"precision": hits / found, "recall": hits / num_targets, "f1": 2 * hits / (found + num_targets)}
        return float(values[self.wanted].max(initial=0.0))


def held_named(name: str) -> Held | None:
    """Return the metric of a name such as ``recall@precision>=0.95``; None for a name of another form.

    Raises:
        ValueError: the value is not in [0, 1], or it is the wanted one that is held.
    """
    found = _FORM.fullmatch(name.replace(" ", "").lower())
    return Held(found[1], found[2], Fraction(found[3])) if found else None
