"""A loader of the user's own among several processes: each takes its share of every batch.

``get_dataloader`` is told the images of a step over all processes, and what it returns there is what one process would
train on alone. A plain ``DataLoader`` knows of no other process, so each would train on the same images: its batches
are shared. One whose sampler does know keeps the order that it has, in batches of the size that is left for each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from eyas import dist
from eyas.augment.random import Purpose, generator
from eyas.data.loader import EpochLoader
from eyas.data.sampler import share_of_batch, smallest_share
from eyas.data.seeded import seeded
from eyas.log import LOGGER

# Samplers of torch that know of no other process; one of the user's own may, and is left alone.
PLAIN = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
KEPT = (
    "dataset", "num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context",
    "generator", "prefetch_factor", "persistent_workers", "in_order",
)  # fmt: skip
LOOKED_AT = 8  # samples by which a data set is known


class SharedBatches(Sampler[list[int]]):
    """One process's share of the batches of a sampler.

    Args:
        loader: the user's, with a sampler that knows of no other process.
        rank, world_size: which contiguous share of each batch to yield.
    """

    def __init__(self, loader: DataLoader[Any], *, rank: int, world_size: int) -> None:
        self.sampler, self.generator = loader.sampler, loader.generator
        assert loader.batch_size is not None, "loaders with batches of their own are not shared"
        self.batch_size, self.batches, self.images = loader.batch_size, len(loader), len(self.sampler)  # type: ignore[arg-type]
        self.rank, self.world_size = rank, world_size
        self.order: list[int] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of an epoch in the main process, for all: another's sampler may draw another."""
        self.order = dist.agree(self.drawn())

    def drawn(self) -> list[int]:
        """Return the order that the loader itself would yield next."""
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)  # a loader seeds its workers first
        return [int(i) for i in self.sampler]

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        order = self.drawn() if self.order is None else self.order  # somebody looks at it before the first epoch
        for first in range(0, self.batches * self.batch_size, self.batch_size):
            stop = min(first + self.batch_size, len(order))
            yield [order[i] for i in share_of_batch(first, stop, self.rank, self.world_size)]


def shared(loader: Any, *, batch: int, rank: int, world_size: int) -> Any:
    """Return this process's part of a loader of the user's; one that is no plain ``DataLoader`` is its own part.

    Every process must call it.

    Args:
        loader: as ``get_dataloader`` returned it.
        batch: images of a step over all processes, as ``get_dataloader`` was told.
        rank, world_size: this process among all.

    Raises:
        ValueError: a batch has less than one image for each process.
    """
    if world_size == 1 or isinstance(loader, EpochLoader):
        return loader
    known = dist.gather_all(known_by(loader))
    if known[0] is not None and all(other == known[0] for other in known):
        refuse_too_few(loader.batch_size, world_size)
        say(f"every one of {world_size} processes takes its share of the batches of {loader.batch_size}")
        return rebuilt(loader, batch_sampler=SharedBatches(loader, rank=rank, world_size=world_size))
    if all(size == batch for size in dist.gather_all(size_of(loader))):
        refuse_too_few(batch, world_size)
        say(f"batch={batch} is for all of {world_size} processes: each takes {batch // world_size} images a step")
        ordered = {} if isinstance(loader.dataset, IterableDataset) else {"sampler": loader.sampler}
        return rebuilt(loader, batch_size=batch // world_size, drop_last=loader.drop_last, **ordered)
    return loader


def known_by(loader: Any) -> tuple[object, ...] | None:
    """Return by what a loader is known to be the same in another process; None for one whose order is not plain.

    A data set that each process has cut for itself has other samples at the same places.
    """
    if size_of(loader) is None or type(getattr(loader, "sampler", None)) not in PLAIN:
        return None
    places = np.linspace(0, len(loader.dataset) - 1, LOOKED_AT).astype(int).tolist()
    with seeded(generator(Purpose.SAMPLE, seed=0, epoch=0)):  # what is random in a sample must not tell them apart
        samples = [fingerprint(loader.dataset[i]) for i in dict.fromkeys(places)]
    return (len(loader.dataset), len(loader.sampler), type(loader.sampler).__name__, loader.batch_size, *samples)


def fingerprint(sample: Any) -> str:
    """Return a hash of a sample or a batch: of its files where it names them, else of a part of its pixels."""
    if isinstance(sample, Mapping):
        known = [sample[name] for name in ("im_file", "img") if name in sample]
        return fingerprint(known[0] if known else list(sample.values()))
    if isinstance(sample, Sequence) and not isinstance(sample, str):
        return " ".join(fingerprint(part) for part in sample)
    if isinstance(sample, torch.Tensor):
        sample = sample.detach().cpu().float().numpy()
    if hasattr(sample, "__array_interface__"):  # of NumPy, Pillow and others
        pixels = np.asarray(sample)
        thinned = pixels[..., ::8, ::8] if pixels.ndim > 2 else pixels
        return hashlib.sha256(np.ascontiguousarray(thinned).tobytes()).hexdigest()[:16]
    return str(sample) if isinstance(sample, str | int | float) else type(sample).__name__


def size_of(loader: Any) -> int | None:
    """Return the images in a batch of torch's own loader, where nobody else decides them."""
    own = type(loader) is DataLoader and loader.batch_size is not None
    return loader.batch_size if own and type(loader.batch_sampler) in (BatchSampler, type(None)) else None


def rebuilt(loader: DataLoader[Any], **changes: Any) -> DataLoader[Any]:
    """Return the same loader with other batches: torch does not let them be changed."""
    kept = {name: getattr(loader, name) for name in KEPT if hasattr(loader, name)}  # not all torch versions have all
    return DataLoader(**kept, **changes)


def refuse_too_few(batch: int, world_size: int) -> None:
    """Stop if a batch has less than one image for each process."""
    if batch < world_size:
        raise ValueError(f"batches of {batch} give {world_size} processes less than one image each; use fewer of them.")


def say(what: str) -> None:
    """Say what became of the user's loader, once."""
    if dist.is_main():
        LOGGER.info("get_dataloader(): %s", what)


class Extent(NamedTuple):
    """How much a loader loads over all processes; None for what it does not tell.

    Attributes:
        images: in an epoch.
        batch: images of a step.
        smallest: images in the smallest batch of an epoch, of any process.
    """

    images: int | None = None
    batch: int | None = None
    smallest: int | None = None


def extent(loader: Any, processes: int) -> Extent:
    """Return how much a loader loads, of which each of so many processes has its part."""
    if isinstance(loader, EpochLoader):
        return Extent(loader.images, smallest=loader.sampler.smallest)
    batches = getattr(loader, "batch_sampler", None)  # of torch's own; a user's may be anything
    if isinstance(batches, SharedBatches):
        images = min(batches.images, len(batches) * batches.batch_size)
        return Extent(images, batches.batch_size, smallest_share(images, batches.batch_size, processes))
    size = size_of(loader)
    if size is None:
        return Extent()
    drawn: Any = loader.dataset if isinstance(loader.dataset, IterableDataset) else loader.sampler  # a stream has none
    images = min(len(drawn), len(loader) * size)
    return Extent(images * processes, size * processes, smallest_share(images, size, 1))
