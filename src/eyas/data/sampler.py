"""The order of an epoch and its cut into batches: functions of (seed, epoch) alone, never of workers or ranks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eyas.augment.random import Purpose, generator
from eyas.data.balance import ImageClasses, class_balanced_probabilities, repeat_factors
from eyas.names import did_you_mean

PARTNER_WINDOW = 16
FAR = 1 << 20  # epochs; no run comes to the order of that one


@dataclass(frozen=True, slots=True)
class SampleKey:
    """All a training data set needs to make one sample, so that no data set holds changing state.

    Attributes:
        epoch: 0-based.
        position: place in the epoch's global order; names the sample's random numbers.
        index: dataset index of the image at that place.
        partners: dataset indices that mosaic and mixup may draw from; samples of one window share the tuple.
        mosaic_closed: True in the last epochs, without mosaic, mixup and cutmix.
    """

    epoch: int
    position: int
    index: int
    partners: tuple[int, ...]
    mosaic_closed: bool = False


@dataclass(frozen=True, slots=True)
class EvalKey:
    """One image of an evaluation batch.

    Attributes:
        index: dataset index.
        shape: (H, W) of its batch in pixels.
    """

    index: int
    shape: tuple[int, int]


class Order(Protocol):
    """Which images an epoch visits, and when: a function of the epoch alone.

    Attributes:
        n: visits in an epoch, the same in every epoch.
    """

    @property
    def n(self) -> int: ...

    def permutation(self, epoch: int) -> np.ndarray:
        """(n,) int64 dataset indices in the order of this epoch."""
        ...

    def effects(self) -> dict[str, object]:
        """What decides it, by option."""
        ...


@dataclass(frozen=True, slots=True)
class EpochOrder:
    """The order in which an epoch visits n images. Any epoch can be asked for without running the ones before.

    Attributes:
        n: number of images.
        seed: seed of the run.
        shuffle: False keeps the order of the data set.
    """

    n: int
    seed: int = 0
    shuffle: bool = True

    def permutation(self, epoch: int) -> np.ndarray:
        """(n,) int64 dataset indices in the order of this epoch."""
        if not self.shuffle:
            return np.arange(self.n)
        return generator(Purpose.ORDER, seed=self.seed, epoch=epoch).permutation(self.n)

    def effects(self) -> dict[str, object]:
        """Return what decides it, by option."""
        return {"sampler": None, "seed": self.seed}


class WeightedOrder:
    """An order that visits some images more often than others.

    An image with the factor 2.3 is visited two or three times in an epoch, 2.3 times in the mean. Visits are drawn by
    systematic sampling: points at equal distances over a line on which each image covers a length equal to its factor.
    So an epoch has always the same length, and no image is forgotten or repeated by bad luck. Images of equal factors
    lie side by side, in random order: then neither is a class whose images are alike.

    Attributes:
        name: what chose the factors, as the option `sampler` calls it.
        factors: (N,) float64, expected visits of each image in an epoch; their sum is n.
        seed: seed of the run.
        n: visits in an epoch.

    Args:
        factors: (N,) at least 0; scaled so that their sum is n.
        seed: seed of the run.
        n: visits in an epoch; None rounds the sum of the factors up, so that no factor of 1 falls below 1 and every
            such image is visited in each epoch.
    """

    name = "weighted"

    def __init__(self, factors: np.ndarray, seed: int = 0, n: int | None = None) -> None:
        total = float(factors.sum())
        # 1e-9: a sum that is whole but for rounding errors is not rounded up to one visit more
        self.n = max(math.ceil(total - 1e-9), min(len(factors), 1)) if n is None else n
        self.factors = factors * (self.n / total) if total > 0 else factors
        self.seed = seed

    def permutation(self, epoch: int) -> np.ndarray:
        """(n,) int64 dataset indices in the order of this epoch; an image may come several times."""
        rng = generator(Purpose.ORDER, seed=self.seed, epoch=epoch)
        line = rng.permutation(len(self.factors))
        line = line[np.argsort(self.factors[line], kind="stable")]
        ends = np.cumsum(self.factors[line])
        points = rng.random() + np.arange(self.n)
        places = np.searchsorted(ends, points, side="right")
        visits = line[np.minimum(places, len(line) - 1)]  # the last end may fall short of n by a rounding error
        return rng.permutation(visits)

    def effects(self) -> dict[str, object]:
        """Return what decides it, by option."""
        return {"sampler": self.name, "seed": self.seed}


class RepeatOrder(WeightedOrder):
    """Images of rare classes several times, all others once (see `repeat_factors`).

    Attributes:
        threshold: share of images below which a class is repeated.
    """

    name = "repeat"

    def __init__(self, image_classes: ImageClasses, *, threshold: float = 0.1, seed: int = 0) -> None:
        self.threshold = threshold
        super().__init__(repeat_factors(image_classes, threshold), seed)

    def effects(self) -> dict[str, object]:
        """Return what decides it, by option."""
        return super().effects() | {"sampler_threshold": self.threshold}


class BalancedOrder(WeightedOrder):
    """As many visits as images, with every class drawn equally often (see `class_balanced_probabilities`)."""

    name = "balanced"

    def __init__(self, image_classes: ImageClasses, *, seed: int = 0) -> None:
        super().__init__(class_balanced_probabilities(image_classes), seed, n=image_classes.n)


SAMPLERS = ("balanced", "repeat")


def choose_order(sampler: str | None, image_classes: ImageClasses, *, threshold: float, seed: int) -> Order:
    """Return the order that a sampler's name stands for; None visits every image once.

    Raises:
        ValueError: no such sampler, or a threshold at which no class is repeated.
    """
    if sampler is None:
        return EpochOrder(image_classes.n, seed)
    if sampler == "balanced":
        return BalancedOrder(image_classes, seed=seed)
    if sampler == "repeat":
        order = RepeatOrder(image_classes, threshold=threshold, seed=seed)
        if order.factors.max(initial=0) <= 1:
            rarest = min((c for c in image_classes.images_per_class().tolist() if c), default=0) / image_classes.n
            raise ValueError(
                f"sampler=repeat has no effect with sampler_threshold={threshold:g}: the rarest class is in "
                f"{rarest:.1%} of the images. Raise the threshold above that, or leave sampler out."
            )
        return order
    hint = did_you_mean(sampler, SAMPLERS) or f" Known are {' and '.join(SAMPLERS)}."
    raise ValueError(f"sampler={sampler!r} is not a sampler.{hint}")


def partner_window(batch: int) -> int:
    """How many consecutive positions share their mosaic partners, for a global batch.

    Windows of 16 tile any batch that is a multiple of 16, and then also the contiguous shares that ranks take of it, so
    every image is decoded once. Other large batches are their own window; several small ones share one of 16.
    """
    return PARTNER_WINDOW if batch % PARTNER_WINDOW == 0 else max(batch, PARTNER_WINDOW)


def rank_share(start: int, stop: int, rank: int, world_size: int) -> tuple[int, int]:
    """The contiguous part of a global batch [start, stop) that one rank takes; shares differ by one sample at most."""
    count = stop - start
    return start + rank * count // world_size, start + (rank + 1) * count // world_size


def share_of_batch(start: int, stop: int, rank: int, world_size: int) -> range:
    """The positions of a global batch [start, stop) that one rank takes.

    Of fewer images than ranks one is repeated, because every rank must take every step.
    """
    first, last = rank_share(start, stop, rank, world_size)
    return range(first, last) if first < last else range(start, start + 1)


def smallest_share(images: int, batch: int, world_size: int) -> int:
    """Return the images in the smallest share of a batch that a rank takes in an epoch."""
    last = images % batch or batch
    return max(last // world_size, 1)


@dataclass(frozen=True)
class Turn:
    """A pass over the images.

    Attributes:
        epoch: 0-based.
        mosaic_closed: without mosaic, mixup and cutmix (`close_mosaic`).
        first_batch: batches to leave out, for a run resumed inside the epoch.
    """

    epoch: int = 0
    mosaic_closed: bool = False
    first_batch: int = 0


class TrainBatchSampler:
    """Yields lists of `SampleKey`, one list for each batch of this rank.

    Args:
        order: the order of each epoch.
        batch: global batch, over all ranks. The last batch of an epoch may be smaller; it is kept.
        rank, world_size: which share of each global batch to yield.
        window: consecutive positions that share mosaic partners; default `partner_window(batch)`.

    Raises:
        ValueError: the global batch has less than one sample for each rank.
    """

    def __init__(
        self, order: Order, *, batch: int, rank: int = 0, world_size: int = 1, window: int | None = None
    ) -> None:
        if order.n < 1:
            raise ValueError("the training set is empty: there is nothing to load")
        self.order = order
        self.wanted = batch
        self.batch = min(batch, order.n)
        if self.batch < world_size:
            raise ValueError(
                f"batch={batch} over {order.n} images gives {world_size} processes less than one image each; "
                "use fewer processes"
            )
        self.rank, self.world_size = rank, world_size
        self.window = window or partner_window(batch)
        self.turn = Turn()
        self.reorder = 0  # above 0: another order than is usual, one for each number

    @property
    def images(self) -> int:
        """Images in an epoch, over all ranks."""
        return self.order.n

    @property
    def smallest(self) -> int:
        """Images in the smallest batch of an epoch, of any rank."""
        return smallest_share(self.order.n, self.batch, self.world_size)

    def __len__(self) -> int:
        return math.ceil(self.order.n / self.batch)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self.keys(self.turn)

    def keys(self, turn: Turn) -> Iterator[list[SampleKey]]:
        """Yield the batches of one pass."""
        return self._batches(turn, [self.rank])

    def upcoming(self, turn: Turn, ranks: Sequence[int]) -> Iterator[list[int]]:
        """Dataset indices of the images that some ranks need for each batch of a pass, partners included."""
        for keys in self._batches(turn, ranks):
            needed = ((key.index,) if key.mosaic_closed else (key.index, *key.partners) for key in keys)
            yield list(dict.fromkeys(itertools.chain.from_iterable(needed)))

    def _batches(self, turn: Turn, ranks: Sequence[int]) -> Iterator[list[SampleKey]]:
        order = self.order.permutation(turn.epoch + self.reorder * FAR).tolist()
        block, partners = -1, ()
        for first in range(turn.first_batch * self.batch, self.order.n, self.batch):
            keys = []
            for position in itertools.chain.from_iterable(self._positions(first, rank) for rank in ranks):
                if position // self.window != block:
                    block = position // self.window
                    # A short last block of an epoch reaches back, or a lone last image would meet only itself.
                    start = max(min(block * self.window, self.order.n - self.window), 0)
                    partners = tuple(order[start : start + self.window])
                keys.append(SampleKey(turn.epoch, position, order[position], partners, turn.mosaic_closed))
            yield keys

    def effects(self) -> dict[str, object]:
        """Return how it cuts the order, and what decides that, by option; fewer images than a batch are one batch."""
        return {"batch": max(self.batch, self.wanted)} | self.order.effects()

    def _positions(self, first: int, rank: int) -> range:
        return share_of_batch(first, min(first + self.batch, self.order.n), rank, self.world_size)


class EvalBatchSampler:
    """Yields lists of `EvalKey`: whole batches, a contiguous run of them for each rank.

    Args:
        batches: list of (dataset indices, (H, W)), see `EvalDataset.batches`.
        rank, world_size: which run of batches to yield.
    """

    def __init__(
        self, batches: list[tuple[np.ndarray, tuple[int, int]]], *, rank: int = 0, world_size: int = 1
    ) -> None:
        start, stop = rank_share(0, len(batches), rank, world_size)
        self.batches, self.all_batches = batches[start:stop], batches
        self.rank, self.world_size = rank, world_size
        self.images = sum(len(indices) for indices, _ in batches)
        self.smallest = min((len(indices) for indices, _ in batches), default=0)
        self.turn = Turn()

    def effects(self) -> dict[str, object]:
        """Return nothing: what it yields is the data set's choice."""
        return {}

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[EvalKey]]:
        return self.keys(self.turn)

    def keys(self, turn: Turn) -> Iterator[list[EvalKey]]:  # they are the same in every epoch
        """Yield the batches of one pass."""
        for indices, shape in self.batches:
            yield [EvalKey(index, shape) for index in indices.tolist()]

    def upcoming(self, turn: Turn, ranks: Sequence[int]) -> Iterator[list[int]]:
        """Dataset indices of the images that some ranks need, for each batch that they take at the same time."""
        parts = [slice(*rank_share(0, len(self.all_batches), rank, self.world_size)) for rank in ranks]
        for side_by_side in itertools.zip_longest(*(self.all_batches[part] for part in parts)):
            yield [index for batch in side_by_side if batch is not None for index in batch[0].tolist()]
