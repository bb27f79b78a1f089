"""What the loop tells loader and criterion: where the run stands, the only message against the flow of data."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from torch.utils.data import DataLoader

from eyas.data.dataset import TrainDataset
from eyas.data.loader import EpochLoader
from eyas.data.numbered import data_sets
from eyas.run.protocol import FollowsEpoch, Loader
from eyas.types import Batch, Progress


@runtime_checkable
class FollowsProgress(Protocol):
    """A criterion that changes with progress."""

    def set_progress(self, progress: Progress) -> None: ...


@runtime_checkable
class FollowsEpochs(Protocol):
    """A sampler whose order changes with the epoch, as torch's ``DistributedSampler``."""

    def set_epoch(self, epoch: int, /) -> None: ...


def tell_loader(loader: Any, epoch: int, mosaic_closed: bool, first_batch: int) -> None:
    """Send the epoch to our own loader, and to the samplers and data sets behind a user's that follow it.

    A data set whose mosaic somebody has closed stays closed.
    """
    ours = [dataset for dataset in data_sets(loader) if isinstance(dataset, TrainDataset)]
    mosaic_closed = mosaic_closed or any(dataset.closed_by_hand for dataset in ours)
    if isinstance(loader, FollowsEpoch):
        loader.set_epoch(epoch, mosaic_closed=mosaic_closed, first_batch=first_batch)
    elif isinstance(loader, DataLoader):
        for sampler in (loader.sampler, loader.batch_sampler):
            if isinstance(sampler, FollowsEpochs):
                sampler.set_epoch(epoch)
    if mosaic_closed:
        for dataset in ours:
            dataset.close_numbered()


def tell_next(loader: object, epoch: int, mosaic_closed: bool) -> None:
    """Send our own loader what will come after the epoch that it was told of."""
    if isinstance(loader, EpochLoader):
        loader.expect(epoch, mosaic_closed=mosaic_closed)


def batches_from(loader: Loader, first_batch: int) -> Iterable[Batch]:
    """Return the rest of an epoch; our own loader was told where to start, a user's is run up to there.

    One that never ends is cut where its length says that an epoch does.
    """
    if isinstance(loader, FollowsEpoch):
        return loader
    return itertools.islice(loader, first_batch, len(loader))


def tell_criterion(criterion: object, progress: Progress) -> None:
    """Send progress to a criterion that follows it."""
    if isinstance(criterion, FollowsProgress):
        criterion.set_progress(progress)


def close_loader(loader: object) -> None:
    """End a loader's worker processes."""
    if isinstance(loader, FollowsEpoch):
        loader.close()
