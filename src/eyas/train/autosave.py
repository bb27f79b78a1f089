"""Saving inside an epoch: when it is due, and the thread that writes, so that a step waits for a copy at most."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from eyas.checkpoint import CheckpointError, SaveError, snapshot
from eyas.config.values import duration
from eyas.log import warn


class Autosave:
    """Saves a run every so often; a process that is killed loses what came after.

    Args:
        every: seconds and the like as text (``"15min"``), a number of optimizer steps, or False for never.
        write: writes a checkpoint; called in a thread.

    Attributes:
        every: as given.
    """

    def __init__(self, every: str | int | bool, write: Callable[[dict[str, Any]], None]) -> None:
        self.every, self.write = every, write
        self.seconds = duration(every) if isinstance(every, str) else None
        self.steps = every if isinstance(every, int) and every else None
        self.thread: threading.Thread | None = None
        self.restart()

    def effects(self) -> dict[str, object]:
        """Return how often it saves, by option."""
        return {"save_every": self.every}

    def restart(self) -> None:
        """Count from here: all is saved."""
        self.taken, self.since = 0, time.monotonic()

    def count(self) -> None:
        """Be told of a step of the optimizer."""
        self.taken += 1

    def counted(self) -> bool:
        """Whether so many steps were taken; the same in all processes."""
        return self.steps is not None and self.taken >= self.steps

    def is_late(self, ahead: float = 0.0) -> bool:
        """Whether so much time is gone, or will be after ``ahead`` seconds, by this process's clock."""
        return self.seconds is not None and time.monotonic() - self.since + ahead >= self.seconds

    def is_writing(self) -> bool:
        """Whether the last copy is not yet in its file; as long, none is taken."""
        return self.thread is not None and self.thread.is_alive()

    def begin(self, checkpoint: dict[str, Any]) -> None:
        """Copy a checkpoint, and let a thread write it."""
        self.settle()
        copy = snapshot(checkpoint)
        self.thread = threading.Thread(target=self.run, args=(copy,), name="eyas-save")
        self.thread.start()

    def run(self, checkpoint: dict[str, Any]) -> None:
        """Write, or say why not; the run may find room later, and the end of the epoch is the judge of its numbers."""
        try:
            self.write(checkpoint)
        except (CheckpointError, SaveError) as error:
            warn(f"{error} The run goes on, and tries again.")

    def settle(self) -> None:
        """Wait until nothing is being written."""
        thread, self.thread = self.thread, None
        if thread is not None:
            thread.join()
