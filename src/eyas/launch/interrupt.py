"""Requests to stop, which the loop answers between two batches so that nothing is torn, and SIGQUIT: where are we?"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from eyas.signals import PATIENT, STOPPING, URGENT, WHERE, show_stacks, silent, unclaimed


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and saved itself; the message says how to go on."""


class Stalled(TimeoutError):
    """A run made no progress, and was ended; the message names who held it up."""


# Signals within so many seconds are one request: `timeout` sends two, to a process and to its group, and managers of
# services send theirs to a launcher and to the processes to which it passes it on.
ONE_REQUEST = 1.0


class InterruptFlag:
    """Set by the first signal; a second one of those that people send interrupts at once.

    Attributes:
        at_once: what to say, where nothing has to be saved: the first signal interrupts then.
        error: raised in place of an interruption, once, by whoever sends SIGINT to this process after setting it.
        has_raised: whether it was.
    """

    def __init__(self) -> None:
        self.raised = self.has_raised = False
        self.since = 0.0
        self.at_once: str | None = None
        self.error: BaseException | None = None

    def __bool__(self) -> bool:
        return self.raised

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.error is not None and not self.has_raised:
            self.has_raised = True
            raise self.error
        if self.raised and (signum in PATIENT or time.monotonic() - self.since < ONE_REQUEST):
            return
        if self.raised:
            raise KeyboardInterrupt
        self.raised, self.since = True, time.monotonic()
        if self.at_once is not None:
            raise Interrupted(self.at_once)
        with suppress(OSError):  # the terminal may be what has gone
            os.write(2, b"\nStopping after this step; once more to stop at once.\n")  # safe inside a signal handler


@contextmanager
def catch_interrupts() -> Iterator[InterruptFlag]:
    """Turn requests to stop into a flag inside the block; only the main thread may do so, others get a dead flag.

    SIGQUIT prints the stacks of all threads of this process and of its workers, and the block goes on. Signals that
    somebody answers already, or ignores, stay his; SIGINT and SIGTERM are ours in any case.
    """
    flag = InterruptFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    taken = [number for number in STOPPING if number in URGENT or unclaimed(number)]
    before = {number: signal.signal(number, flag.handle) for number in taken}
    hide_stacks = show_stacks() if any(silent(number) for number in WHERE) else None
    try:
        yield flag
    finally:
        if hide_stacks is not None:
            hide_stacks()
        for number, handler in before.items():
            signal.signal(number, handler)
