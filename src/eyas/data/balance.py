"""How often to show images so that rare classes are seen: pure functions of the labels, without a loop over images.

Legend: ``N`` images, ``C`` classes, ``P`` distinct pairs of an image and a class in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class ImageClasses:
    """Which classes each image shows.

    Attributes:
        images: (P,) int64 image of each pair, ascending.
        classes: (P,) int64 class of each pair.
        counts: (P,) int64 boxes of that class in that image.
        n: number of images, those without boxes included.
        nc: number of classes.
    """

    images: np.ndarray
    classes: np.ndarray
    counts: np.ndarray
    n: int
    nc: int

    @classmethod
    def from_labels(cls, labels: np.ndarray, offsets: np.ndarray, nc: int) -> ImageClasses:
        """Count pairs from flat labels (T,), those of image i being rows offsets[i] : offsets[i+1]; offsets (N+1,)."""
        n = len(offsets) - 1
        image = np.repeat(np.arange(n, dtype=np.int64), np.diff(offsets))
        pairs, counts = np.unique(image * nc + labels.astype(np.int64), return_counts=True)
        return cls(pairs // nc, pairs % nc, counts, n, nc)

    def objects(self) -> np.ndarray:
        """Boxes of each class (C,) int64."""
        return np.bincount(self.classes, weights=self.counts, minlength=self.nc).astype(np.int64)

    def images_per_class(self) -> np.ndarray:
        """Images that show each class (C,) int64."""
        return np.bincount(self.classes, minlength=self.nc)


def repeat_factors(image_classes: ImageClasses, threshold: float) -> np.ndarray:
    """Return how often to show each image in an epoch (N,), >= 1 (Gupta et al., 2019, LVIS).

    A class in a share f of all images asks for ``max(1, sqrt(threshold / f))``; an image follows its rarest class, and
    one without boxes is shown once.

    Args:
        image_classes: what each image shows.
        threshold: share of images in (0, 1] below which a class is repeated.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"sampler_threshold={threshold} is a share of images: it must lie in (0, 1].")
    share = np.maximum(image_classes.images_per_class(), 1) / max(image_classes.n, 1)
    wanted = np.maximum(1.0, np.sqrt(threshold / share))
    factors = np.ones(image_classes.n)
    np.maximum.at(factors, image_classes.images, wanted[image_classes.classes])
    return factors


def class_balanced_probabilities(image_classes: ImageClasses) -> np.ndarray:
    """Return the probability of each image (N,), sum 1: draw any class that occurs, then any image that shows it.

    Images without boxes keep their share of the data, all alike: they teach what is no object, and no class asks for
    them.
    """
    images, classes = image_classes.images, image_classes.classes
    holders = image_classes.images_per_class()
    present = int(np.count_nonzero(holders))
    if not present:
        return np.full(image_classes.n, 1 / max(image_classes.n, 1))
    background = np.ones(image_classes.n, bool)
    background[images] = False
    share = background.mean()
    probabilities = np.bincount(images, weights=(1 - share) / present / holders[classes], minlength=image_classes.n)
    probabilities[background] = 1 / image_classes.n
    return probabilities


def sampling_factors(image_classes: ImageClasses, factors: np.ndarray) -> np.ndarray:
    """Return how much larger each class's share of all boxes shown becomes (C,); 1 for classes without boxes.

    Args:
        image_classes: what each image shows.
        factors: (N,) expected times that each image is shown in an epoch.
    """
    before = image_classes.objects().astype(np.float64)
    shown = factors[image_classes.images] * image_classes.counts
    after = np.bincount(image_classes.classes, weights=shown, minlength=image_classes.nc)
    if not before.any():
        return np.ones(image_classes.nc)
    ratio = np.divide(after, before, out=np.ones_like(before), where=before > 0)
    ratio[before > 0] *= before.sum() / after.sum()
    return ratio


def combined_factors(sampling: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the factor on each class's part of the loss (C,) when its images are repeated and its loss is weighted."""
    return np.asarray(sampling, np.float64) * np.asarray(weights, np.float64)


def describe_combined(
    names: Mapping[int, str], sampling: np.ndarray, weights: np.ndarray, combined: np.ndarray, *, sampler: str
) -> str:
    """Return one sentence about classes that are balanced twice, with the classes at both ends."""
    order = np.argsort(-combined, kind="stable").tolist()
    ends = order if len(order) <= 6 else [*order[:3], *order[-3:]]
    cells = [f"{names[i]} {sampling[i]:.3g} x {weights[i]:.3g} = {combined[i]:.3g}" for i in ends]
    if len(order) > 6:
        cells.insert(3, "...")
    return (
        f"sampler={sampler} and class weights both favour rare classes, and their factors multiply "
        f"(sampling x weight): {', '.join(cells)}. Use one of them unless you mean both."
    )
