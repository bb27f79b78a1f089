"""Requests to stop between two steps, Ctrl-C and the end of the ``time`` budget, answered by all processes alike."""

from __future__ import annotations

from enum import IntEnum

from eyas import dist

ASK_EVERY = 10  # at most so many optimizer steps lie between two questions to the other processes
ASK_WITHIN = 3.0  # and about so many seconds, so that there is time to save before a launcher loses its patience


class Request(IntEnum):
    """What a process wants done between two batches; the highest of all is done."""

    NOTHING = 0
    SAVE = 1
    LEAVE = 2


class Requests:
    """When the processes ask each other whether one of them was asked to stop.

    Asking after every step would hold up the fast ones. A process alone asks itself at every step.

    Args:
        several: whether there are other processes.

    Attributes:
        every: optimizer steps between two questions.
    """

    def __init__(self, several: bool) -> None:
        self.several = several
        self.every = 1

    def due(self, step: int, steps: int, accumulate: int, step_due: bool) -> bool:
        """Whether the processes exchange requests after this batch.

        Args:
            step: 0-based batch of the epoch.
            steps: batches in the epoch.
            accumulate: batches for each step of the optimizer.
            step_due: whether the optimizer has stepped after this batch.
        """
        if not self.several or step + 1 == steps:
            return True
        return step_due and (step + 1) // accumulate % self.every == 0

    def set_pace(self, updates: int, seconds: float) -> None:
        """Agree on the steps between two questions, from the seconds that an epoch's optimizer steps took."""
        self.every = dist.agree(max(1, min(ASK_EVERY, int(ASK_WITHIN * max(updates, 1) / max(seconds, 1e-3)))))
