"""How a process of a training ends when something is wrong: by one error that names the cause."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from eyas.data.errors import LoaderGoneError
from eyas.data.loader import fallen_workers
from eyas.launch.handover import LostPeerError, is_lost_peer
from eyas.launch.interrupt import InterruptFlag, Stalled
from eyas.log import LOGGER
from eyas.train.memory import OutOfMemory, first_line, is_out_of_memory

GRACE = 0.5  # seconds for a worker to be known as dead, where an error may have been caused by its end
BROKEN = 5.0  # the same where a connection is broken: on a busy machine half a second was not enough
LAST = 10.0  # seconds to end in an orderly way, then at once

# What torch says of a worker process of its loader, wherever in the training it notices.
GONE = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: (.+?)\.|exited)")


def cause_of(error: BaseException, *loaders: object) -> BaseException:
    """Return the error that people are told instead of one: itself, unless a library says in its words what happened.

    A process that loads images is named when it is gone, and of a process at the other end of a broken connection it
    is said that its own message tells more.

    Args:
        error: what ends the training.
        loaders: those that it read from.
    """
    if isinstance(error, OSError | EOFError | RuntimeError):  # what torch, or a broken connection to a worker, raises
        patience = BROKEN if isinstance(error, ConnectionError | EOFError) else GRACE
        try:
            for number, code in (fallen for loader in loaders for fallen in fallen_workers(loader, patience).items()):
                return loader_gone(str(number), ended_how(code))
        except RuntimeError as said:  # torch answers the end of a worker wherever this process is, as in waiting for it
            error = said
    found = GONE.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is not None:
        how = "was killed by SIGKILL" if found[2] == "Killed" else f"was ended by {found[2]}" if found[2] else "ended"
        return loader_gone(found[1].strip(), how)
    if is_out_of_memory(error) and not isinstance(error, OutOfMemory):
        return OutOfMemory(
            f"memory is too small ({first_line(error)}); {memory()}. Give a smaller batch, imgsz or model."
        )
    if not isinstance(error, LostPeerError) and is_lost_peer(error):
        return LostPeerError("another process of this run has ended; what it said tells why.")
    return error


def loader_gone(number: str, how: str) -> LoaderGoneError:
    """Return the error of a process that loads images and is gone."""
    return LoaderGoneError(
        f"process {number}, which loads images, {how}; {memory()}. Use fewer workers= or a smaller batch= if memory is "
        "short."
    )


def ended_how(code: int) -> str:
    """Say how a process ended, by its exit code as Python gives it."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"was killed by {name}"
    return f"ended with code {code}"


def memory() -> str:
    """Say how much memory of this host is free."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return "how much memory is free is not known"
    return f"{free / 2**20:.1f} GiB of memory are free now"


def end_stalled(error: Stalled, flag: InterruptFlag, thread: int, leave: Callable[[BaseException], None]) -> None:
    """End a run that hangs, from a thread that does not: by raising in the one that trains, else at once.

    Args:
        error: the reason.
        flag: what answers signals while the run trains.
        thread: the one that trains; nothing can be raised in another than the main one.
        leave: ends the process.
    """
    if thread != threading.main_thread().ident:
        LOGGER.error("%s The training is not in the main thread, where alone it could be ended.", error)
        return
    flag.error = error
    signal.pthread_kill(thread, signal.SIGINT)  # wakes it from a call of the system too
    time.sleep(LAST)
    if not flag.has_raised:
        leave(error)


def leave_at_once(error: BaseException) -> None:
    """End this process, whose main thread cannot be reached."""
    print(f"eyas: {error}", file=sys.stderr, flush=True)
    os._exit(1)
