"""Whether val and test are like train: classes, sizes and aspects of boxes, brightness of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2_contingency, ks_2samp

from eyas.doctor.case import Case, Split
from eyas.doctor.finding import Finding, finding

NAME = "shift"
SURE = 0.001  # p below which a difference is no accident
# A difference that is no accident may still be of no importance, so its size decides. Cohen calls w = 0.1 small, 0.3
# medium; 0.3 and 0.5 of Kolmogorov's distance are two normal distributions 0.8 and 1.3 standard deviations apart.
SHARES, VERY_SHARES = 0.15, 0.3
APART, FAR_APART = 0.3, 0.5
FEW = 10_000  # pairs of images up to which p is exact: the formula for many takes any two single images for certain


class Shares(NamedTuple):
    """How far class shares differ: effect size w of Cohen, as Cramér's V of two samples; and p."""

    v: float
    p: float


def compare_shares(counts: np.ndarray, images: np.ndarray) -> Shares:
    """Compare counts (2, C) of classes in two splits that have (2,) images with boxes.

    Objects of an image are not independent of each other, so counts are scaled down to one object for each image.
    """
    counts = counts[:, counts.sum(axis=0) > 0].astype(np.float64)
    if counts.shape[1] < 2:
        return Shares(0.0, 1.0)
    scaled = counts * (images / counts.sum(axis=1))[:, None]
    result = chi2_contingency(scaled, correction=False)
    return Shares(float(np.sqrt(result.statistic / scaled.sum())), float(result.pvalue))


def look(case: Case) -> Iterator[Finding]:
    """Compare train with every other split."""
    train = case.splits.get("train")
    if train is None:
        return
    for name, other in case.splits.items():
        if other is not train and len(train.cls) and len(other.cls):
            yield from _classes(case, train, other)
        if other is not train:
            for kind, (a, b), unit in _measures(train, other):
                yield from _distance(kind, name, a, b, unit)


def _classes(case: Case, train: Split, other: Split) -> Iterator[Finding]:
    counts = np.stack([split.index.instances(len(case.names)) for split in (train, other)])
    images = np.array([(split.index.objects() > 0).sum() for split in (train, other)])
    found = compare_shares(counts, images)
    if found.p < SURE and found.v >= SHARES:
        shares = counts / counts.sum(axis=1, keepdims=True)
        worst = int(np.abs(shares[0] - shares[1]).argmax())
        yield finding(
            NAME,
            "other class shares",
            "warning" if found.v >= VERY_SHARES else "note",
            f"{other.name} has other shares of the classes than train (Cramér's V {found.v:.2f}), above all "
            f"{case.names[worst]}: {shares[0, worst]:.1%} of boxes in train, {shares[1, worst]:.1%} in {other.name}",
            "Split the data anew at random, or by class, unless this is what the model will meet.",
        )


def _measures(train: Split, other: Split) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray], str]]:
    """One value for each image of the two splits, so that values are independent of each other."""
    both = train, other
    if all(len(split.cls) for split in both):
        yield "box sizes", _medians(*both, [np.sqrt((s.sides * s.scale[:, None]).prod(axis=1)) for s in both]), "px"
        ratios = [s.sides[:, 0] / np.maximum(s.sides[:, 1], 1e-9) for s in both]
        yield "box aspects", _medians(*both, ratios), "as wide as high"
    bright = train.pixels.brightness, other.pixels.brightness
    yield "brightness", (bright[0][np.isfinite(bright[0])], bright[1][np.isfinite(bright[1])]), "grey levels of 255"


def _medians(train: Split, other: Split, values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The median box of every image that has boxes, of both splits."""
    first, second = (_median_of_each(*pair) for pair in zip((train, other), values, strict=True))
    return first, second


def _median_of_each(split: Split, values: np.ndarray) -> np.ndarray:
    order = np.lexsort((values, split.image_of))  # within each image by value
    counts = split.index.objects()
    starts = split.index.label_offsets[:-1][counts > 0]
    return values[order][starts + counts[counts > 0] // 2]


def _distance(kind: str, name: str, train: np.ndarray, other: np.ndarray, unit: str) -> Iterator[Finding]:
    if not len(train) or not len(other):
        return
    result = ks_2samp(train, other, method="exact" if len(train) * len(other) <= FEW else "asymp")
    if result.pvalue < SURE and result.statistic >= APART:
        usual = np.median(train), np.median(other)
        yield finding(
            NAME,
            f"other {kind}",
            "warning" if result.statistic >= FAR_APART else "note",
            f"{name} has other {kind} than train (Kolmogorov's distance {result.statistic:.2f} of 1): usual are "
            f"{usual[0]:.3g} {unit} in train, {usual[1]:.3g} in {name}",
            f"See whether {name} comes from elsewhere; if not, split the data anew at random.",
        )
