"""Noticing that the process that started this one is gone, however it ended: no signal and no closed pipe may tell."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

LOOK = 1.0  # seconds between two looks


def is_there(parent: int) -> bool:
    """Whether a process that started this one still runs: what a dead one leaves is given another parent."""
    return os.getppid() == parent


def follow(parent: int, gone: Callable[[], object]) -> None:
    """Call something, in a thread of its own, once the process that started this one is gone.

    Args:
        parent: its number as it knows it itself: it may die before this one has asked.
        gone: what is to be done.
    """

    def look() -> None:
        while is_there(parent):
            time.sleep(LOOK)
        gone()

    threading.Thread(target=look, name="parent", daemon=True).start()
