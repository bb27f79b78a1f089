"""What the loop tells loader and criterion: where the run stands, the only message against the flow of data."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from eyas.run.protocol import FollowsEpoch
from eyas.types import Batch, Progress


@runtime_checkable
class FollowsProgress(Protocol):
    """A criterion that changes with progress."""

    def set_progress(self, progress: Progress) -> None: ...


def tell_loader(loader: Iterable[Batch], epoch: int, mosaic_closed: bool, first_batch: int) -> None:
    """Send the epoch to our own loader; a user's plain loader has no such door and needs none."""
    if isinstance(loader, FollowsEpoch):
        loader.set_epoch(epoch, mosaic_closed=mosaic_closed, first_batch=first_batch)


def batches_from(loader: Iterable[Batch], first_batch: int) -> Iterable[Batch]:
    """Return the rest of an epoch; our own loader was told where to start, a user's plain one is run up to there."""
    if isinstance(loader, FollowsEpoch):
        return loader
    return itertools.islice(loader, first_batch, None)


def tell_criterion(criterion: object, progress: Progress) -> None:
    """Send progress to a criterion that follows it."""
    if isinstance(criterion, FollowsProgress):
        criterion.set_progress(progress)


def close_loader(loader: object) -> None:
    """End a loader's worker processes."""
    if isinstance(loader, FollowsEpoch):
        loader.close()
