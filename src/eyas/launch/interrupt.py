"""Ctrl-C and SIGTERM as a request that the loop answers between two batches, so that nothing is torn."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and saved itself; the message says how to go on."""


# Signals within so many seconds are one request: `timeout` sends two, to a process and to its group, and managers of
# services send theirs to a launcher and to the processes to which it passes it on.
ONE_REQUEST = 1.0


class InterruptFlag:
    """Set by the first signal; a second one interrupts at once."""

    def __init__(self) -> None:
        self.raised = False
        self.since = 0.0

    def __bool__(self) -> bool:
        return self.raised

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.raised and time.monotonic() - self.since < ONE_REQUEST:
            return
        if self.raised:
            raise KeyboardInterrupt
        self.raised, self.since = True, time.monotonic()
        os.write(2, b"\nStopping after this step; once more to stop at once.\n")  # safe inside a signal handler


@contextmanager
def catch_interrupts() -> Iterator[InterruptFlag]:
    """Turn SIGINT and SIGTERM into a flag inside the block; only the main thread may do so, others get a dead flag."""
    flag = InterruptFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, flag.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
