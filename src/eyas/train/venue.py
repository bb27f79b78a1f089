"""Where trainings are held: as their user wants them, or by a host that shortens them and says what becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from eyas.config import TrainOptions
from eyas.config.folders import own_folder
from eyas.train.result import TrainResult

Trainer = TypeVar("Trainer", contravariant=True)


class Venue(Generic[Trainer]):
    """What trainers and ``eyas.api`` ask before they act; this one leaves everything as it is."""

    def train_options(self, given: TrainOptions, trainer: type[Trainer]) -> TrainOptions:
        """Return the options that a trainer is made with instead of those given."""
        return given

    def train(self, trainer: Trainer, go: Callable[[], TrainResult]) -> TrainResult:
        """Train by calling ``go()``, or do something else."""
        return go()

    def val_options(self, given: TrainOptions) -> TrainOptions:
        """Return the options that ``val()`` measures under instead of those given."""
        return given

    def folder(self, options: TrainOptions, default_name: str) -> AbstractContextManager[Path]:
        """Open where ``val()`` or ``predict()`` writes; a training's folder is in its options."""
        return own_folder(options, default_name)


# The last has all trainings, those in other threads too: a user's file may train in one, and a long training must not
# begin there while the rest of the file is only rehearsed.
_hosts: list[Venue[Any]] = [Venue()]


def venue() -> Venue[Any]:
    """Return where trainings are held at this moment."""
    return _hosts[-1]


@contextmanager
def hosted_by(host: Venue[Any]) -> Iterator[None]:
    """Let a host have every training of this process inside the block; ``eyas rehearse`` enters one of its own."""
    _hosts.append(host)
    try:
        yield
    finally:
        _hosts.pop()
