"""Which signals ask a process to stop, and the one that asks where it is."""

from __future__ import annotations

import faulthandler
import signal


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


def show_stacks(*, chain: bool = False) -> None:
    """Let SIGQUIT print the stacks of all threads of this process, even while it hangs in a library.

    Args:
        chain: also call the handler that Python has for it.
    """
    for number in WHERE:
        faulthandler.register(number, file=STDERR, all_threads=True, chain=chain)
