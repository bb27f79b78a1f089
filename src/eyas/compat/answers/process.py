"""Which process this is, for scripts: ``RANK`` and its kin (spec core A.10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from eyas import dist


class ProcessNumber(int):
    """The number of this process among those that train together, -1 when there is only one.

    It travels as "the number of whoever unpickles it": a script's ``RANK`` is right in every process.
    """

    def __reduce__(self) -> tuple[Callable[[], ProcessNumber], tuple[()]]:
        return (rank, ())


class LocalProcessNumber(ProcessNumber):
    """The same, counted on this host."""

    def __reduce__(self) -> tuple[Callable[[], ProcessNumber], tuple[()]]:
        return (local_rank, ())


def rank() -> ProcessNumber:
    """Number of this process, -1 when it trains alone."""
    return ProcessNumber(dist.rank() if dist.world_size() > 1 else -1)


def local_rank() -> LocalProcessNumber:
    """Number of this process on its host, -1 when it trains alone."""
    return LocalProcessNumber(dist.local_rank() if dist.world_size() > 1 else -1)


@contextmanager
def torch_distributed_zero_first(local_rank: int) -> Iterator[None]:
    """Let the first process run the block before the others do, who then find its files."""
    first = local_rank in (-1, 0)
    if not first:
        dist.barrier()
    yield
    if first:
        dist.barrier()
