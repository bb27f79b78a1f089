"""The order of an epoch and its cut into batches: functions of (seed, epoch) alone, never of workers or ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eyas.augment.random import Purpose, generator

PARTNER_WINDOW = 16


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
        self, order: EpochOrder, *, batch: int, rank: int = 0, world_size: int = 1, window: int | None = None
    ) -> None:
        if order.n < 1:
            raise ValueError("the training set is empty: there is nothing to load")
        self.order = order
        self.batch = min(batch, order.n)
        if self.batch < world_size:
            raise ValueError(
                f"batch={batch} over {order.n} images gives {world_size} processes less than one image each; "
                "use fewer processes"
            )
        self.rank, self.world_size = rank, world_size
        self.window = window or partner_window(batch)
        self.epoch, self.mosaic_closed, self.paused, self.first_batch = 0, False, False, 0

    def __len__(self) -> int:
        return math.ceil(self.order.n / self.batch)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        if self.paused:
            return
        epoch, closed = self.epoch, self.mosaic_closed
        order = self.order.permutation(epoch).tolist()
        block, partners = -1, ()
        for first in range(self.first_batch * self.batch, self.order.n, self.batch):
            keys = []
            for position in self._positions(first):
                if position // self.window != block:
                    block = position // self.window
                    # A short last block of an epoch reaches back, or a lone last image would meet only itself.
                    start = max(min(block * self.window, self.order.n - self.window), 0)
                    partners = tuple(order[start : start + self.window])
                keys.append(SampleKey(epoch, position, order[position], partners, closed))
            yield keys

    def _positions(self, first: int) -> range:
        start, stop = rank_share(first, min(first + self.batch, self.order.n), self.rank, self.world_size)
        if start < stop:
            return range(start, stop)
        # A last batch with fewer images than ranks: this rank repeats one, because every rank must take every step.
        return range(first, first + 1)


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
        self.batches = batches[start:stop]
        self.paused = False

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[EvalKey]]:
        if self.paused:
            return
        for indices, shape in self.batches:
            yield [EvalKey(index, shape) for index in indices.tolist()]
