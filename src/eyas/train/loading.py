"""The training loader that ``get_dataloader`` returned: what it loads, and that processes do not load the same.

Ours shares every batch among the processes. A user's may be anything, so its batches are looked at in the first epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from eyas import dist
from eyas.data.loader import EpochLoader
from eyas.data.sampler import TrainBatchSampler
from eyas.data.share import SharedBatches, extent, fingerprint, shared, size_of
from eyas.device import seed_step
from eyas.types import Batch

LOADING = 2**31  # in place of a step: what a loader draws when an epoch begins
EARLY = 4  # batches after which the same order in all processes is no chance
FEW = 4  # different images, of which less prove nothing

SHARING = """\
    sampler = torch.utils.data.DistributedSampler(dataset, max(self.world_size, 1), rank)
    return DataLoader(dataset, batch_size=batch_size // max(self.world_size, 1), sampler=sampler, ...)"""


def adopted(loader: Any, *, batch: int) -> Any:
    """Return the loader that this process trains with: its part of the one that ``get_dataloader`` returned.

    Args:
        loader: ours, torch's or any other.
        batch: images of a step over all processes, as ``get_dataloader`` was told.

    Raises:
        ValueError: it has no length, or not the same in all processes, or no batch.
    """
    batches = length(loader)
    if not all(dist.gather_all(batches)):
        raise ValueError(
            f"get_dataloader() returned a loader of 0 batches{makeup(loader)}: nothing could be trained on."
        )
    mine = shared(loader, batch=batch, rank=dist.rank(), world_size=dist.world_size())
    lengths = dist.gather_all(batches if mine is loader else len(mine))
    if len(set(lengths)) > 1:
        told = ", ".join(f"{count} in process {rank}" for rank, count in enumerate(lengths))
        raise ValueError(
            f"get_dataloader() gives batches of an epoch in different numbers: {told}. Every process must take every "
            "step; torch.utils.data.DistributedSampler makes parts of one length."
        )
    return mine


def length(loader: Any) -> int:
    """Return the batches of an epoch.

    Raises:
        ValueError: the loader does not say.
    """
    try:
        return len(loader)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            f"get_dataloader() returned a {type(loader).__name__} without a length ({error}), so an epoch would never "
            "end: give it, or the data set behind it, a __len__()."
        ) from error


def makeup(loader: Any) -> str:
    """Return in brackets what torch's own loader makes its batches of; nothing for a loader that does not tell."""
    size = size_of(loader)
    if size is None:
        return ""
    drop = ", drop_last=True" if loader.drop_last else ""
    return f" ({len(loader.dataset)} images, batch {size}{drop})"


def images_per_step(loader: Any) -> int | None:
    """Return the images of a step over all processes; None for a loader that does not tell."""
    return extent(loader, dist.world_size()).batch


def images_per_epoch(loader: Any, batch: int) -> int:
    """Return the images of an epoch over all processes, as many as full batches hold where a loader does not tell."""
    return extent(loader, dist.world_size()).images or len(loader) * batch


def debtor(loader: Any) -> str:
    """Say which process owes the next batch of a loader of ours; empty where that is not known."""
    return loader.debtor() if isinstance(loader, EpochLoader) else ""


def smallest_batch(loader: Any) -> int | None:
    """Return the images in the smallest batch of an epoch, of any process; None for a loader that does not tell."""
    return extent(loader, dist.world_size()).smallest


def seed_loader(seed: int, epoch: int) -> None:
    """Seed what a user's loader draws from torch when an epoch begins: a function of the run, in each process another.

    Ours draws from no global generator.
    """
    seed_step(seed, epoch, LOADING, dist.rank())


def reorder(loader: Any, number: int) -> None:
    """Let our own loader visit the images in another order than is usual, one for each number above 0."""
    if isinstance(loader, EpochLoader) and isinstance(loader.sampler, TrainBatchSampler):
        loader.sampler.reorder = number


def may_be_unshared(loader: Any) -> bool:
    """Whether nothing but its batches can tell that a loader gives each of several processes images of its own."""
    if isinstance(loader, EpochLoader):
        return loader.sampler.world_size != dist.world_size()
    return dist.world_size() > 1 and not isinstance(getattr(loader, "batch_sampler", None), SharedBatches)


def watched(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the batches of an epoch, and stop where all processes get the same.

    Raises:
        ValueError: they do; says how to share them.
    """
    seen: list[tuple[str, str]] = []
    for number, batch in enumerate(batches, 1):
        seen += images_of(batch)
        if number == EARLY:
            refuse_the_same(dist.gather_all(seen), complete=False)
        yield batch
    refuse_the_same(dist.gather_all(seen), complete=True)


def images_of(batch: Any) -> list[tuple[str, str]]:
    """Return the file, if it is known, and a hash of the pixels of each image of a batch.

    A batch of another kind, which only an override of ``preprocess_batch`` understands, counts as one image.
    """
    if not (isinstance(batch, Mapping) and "img" in batch):
        return [(fingerprint(batch), "")]
    pixels = [fingerprint(image) for image in batch["img"]]
    files = [str(file) for file in batch.get("im_file", ())]
    return list(zip(files if len(files) == len(pixels) else pixels, pixels, strict=True))


def refuse_the_same(everyone: list[list[tuple[str, str]]], complete: bool) -> None:
    """Stop if all processes have seen the same images.

    Args:
        everyone: file and pixels of every image that each process has seen, in order.
        complete: whether that was all of an epoch.

    Raises:
        ValueError: they have seen the same in the same order, or each has gone through all of the same set.
    """
    files = [[file for file, _ in seen] for seen in everyone]
    once = all(len(set(names)) == len(names) for names in files)
    # Files that come several times may hold several images each, and those that do not may be augmented.
    told: list[list[Any]] = [*files] if once else [*everyone]
    first = told[0]
    if len(set(first)) < FEW:
        return
    same = all(seen == first for seen in told)
    if same or (complete and once and all(set(seen) == set(first) for seen in told)):
        how = "in the same order" if same else "each in an order of its own"
        raise ValueError(
            f"get_dataloader(): all {len(told)} processes train on the same images, {how}, so that more processes "
            f"bring nothing. A sampler of your own cannot be shared for you; give each process its part:\n{SHARING}"
        )
