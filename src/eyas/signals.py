"""Which signals ask a process to stop, and the one that asks where it is."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from types import FrameType


def existing(*names: str) -> tuple[signal.Signals, ...]:
    """Return the signals of these names that this platform has."""
    return tuple(getattr(signal, name) for name in names if name in dir(signal))


URGENT = existing("SIGINT", "SIGTERM")
"""Requests to stop that people send; a second one means at once."""
PATIENT = existing("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""Those that schedulers, terminals and limits send: they repeat themselves, SIGXCPU every second, and mean no haste."""
STOPPING = (*URGENT, *PATIENT)
STDERR = 2  # the descriptor: what Python calls sys.stderr may be a notebook's
WHERE = existing("SIGQUIT")
"""Asks where a process is; a tuple of one, or of none where the platform has none."""


def unclaimed(number: signal.Signals) -> bool:
    """Whether nobody answers a signal, nor ignores it as nohup does."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def silent(number: signal.Signals) -> bool:
    """Whether nobody answers a signal; a shell lets its background jobs ignore SIGQUIT, and means Ctrl-\\ by that."""
    return unclaimed(number) or signal.getsignal(number) is signal.SIG_IGN


def show_stacks() -> Callable[[], None]:
    """Let SIGQUIT print the stacks of all threads of this process, then those of its workers; return what ends that.

    To be called in the main thread. A thread of its own answers, which the signal wakes through a descriptor: it does
    so while the main thread waits in a library, and holds the interpreter's lock while it looks. faulthandler's handler
    holds none, so it reads frames that other threads are changing; now and then that has crashed a training.
    """
    if not WHERE:
        return lambda: None
    wakes, woken = os.pipe()
    os.set_blocking(woken, False)  # nothing may block in a signal handler
    others = signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _only_wake) for number in WHERE}
    threading.Thread(target=_answer, args=(wakes, others), name="stacks", daemon=True).start()

    def end() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(others)
        os.write(woken, bytes([_END]))
        os.close(woken)

    return end


_END = 0  # no signal has this number


def _only_wake(number: int, frame: FrameType | None) -> None:
    """Answer a signal, which has written its number by now; without any handler it would end the process."""


def _answer(wakes: int, others: int) -> None:
    """Show the stacks whenever it is asked for; pass the numbers of signals on to who was woken by them before."""
    while _END not in (received := os.read(wakes, 64)):
        if others != -1:
            os.write(others, received)
        if any(number in received for number in WHERE):
            faulthandler.dump_traceback(STDERR, all_threads=True)
            show_workers()
    os.close(wakes)


def show_workers() -> None:
    """Let the processes that this one has started with multiprocessing show their stacks, one after the other."""
    workers = [(worker.name, pid) for worker in multiprocessing.active_children() if (pid := worker.pid) is not None]
    for (name, pid), number in product(workers, WHERE):
        with suppress(OSError):  # it has ended; the terminal has gone
            os.write(STDERR, f"\n{name} (pid {pid}), which loads its images:\n".encode())
            os.kill(pid, number)
            time.sleep(_TURN)


_TURN = 0.2  # seconds in which a worker prints its stack: it belongs below its name, and apart from the next one's
