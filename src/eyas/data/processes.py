"""Worker processes: how they are started, and work that is spread over some of them."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

import cv2

from eyas.signals import STOPPING, show_stacks

# Fork on Linux: workers start in milliseconds (spawn imports torch again, 2-4 s each), share the index without copying
# it, and take transforms that cannot be pickled, such as lambdas and functions of a notebook. The known danger, a lock
# held by another thread at the moment of the fork, is kept small: workers start when the loader or the index is built,
# before training uses thread pools, and call only NumPy, Pillow and OpenCV on one thread. Elsewhere fork is missing or
# unsafe with the system's own libraries, hence spawn.
START_METHOD = "fork" if sys.platform.startswith("linux") else "spawn"
_AHEAD = 2  # tasks that a process has at a time, so that it need not wait for the next one

Result = TypeVar("Result")


@contextmanager
def forking() -> Iterator[None]:
    """Keep Python 3.12's warning of any fork beside other threads quiet; see START_METHOD for why it is right here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        yield


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def can_fork() -> bool:
    """Whether this process may have others work for it that know all it knows.

    Not where each would run the user's script again (spawn), and not in a process that is itself somebody's worker.
    """
    return START_METHOD == "fork" and not multiprocessing.current_process().daemon


def spread(work: Callable[[range], Result], tasks: Sequence[range], processes: int) -> Iterator[Result]:
    """Yield ``work(task)`` of each range of numbers, in order, done by forked processes.

    They see what this process holds, and without a copy as long as it stands in arrays; only tasks and results travel.

    Raises:
        ChildProcessError: one of them has ended, by an error or from outside.
    """
    workers: list[_Worker] = []
    try:
        with forking():
            for _ in range(min(processes, len(tasks))):
                workers.append(_start(work, [worker.pipe for worker in workers]))
        yield from _results(workers, tasks)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


class _Worker(NamedTuple):
    process: BaseProcess
    pipe: Connection


def _start(work: Callable[[range], Result], others: list[Connection]) -> _Worker:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs, [*others, ours]), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _results(workers: list[_Worker], tasks: Sequence[range]) -> Iterator[Any]:
    left = enumerate(tasks)
    arrived: dict[int, Any] = {}
    busy: dict[Any, BaseProcess] = {worker.pipe: worker.process for worker in workers}
    for worker in workers:
        for item in itertools.islice(left, _AHEAD):
            with _blamed(worker.process):
                worker.pipe.send(item)
    for number in range(len(tasks)):
        while number not in arrived:
            ready: list[Any] = wait(busy)
            for pipe in ready:
                with _blamed(busy[pipe]):
                    done, result = pipe.recv()
                    arrived[done] = result
                    for item in itertools.islice(left, 1):
                        pipe.send(item)
        yield arrived.pop(number)


@contextmanager
def _blamed(process: BaseProcess) -> Iterator[None]:
    """Say why a process is gone, where a pipe to it was found closed."""
    try:
        yield
    except (EOFError, ConnectionError):
        process.join()
        raise ChildProcessError(_why_gone(process.exitcode or 0)) from None


def _why_gone(code: int) -> str:
    if code >= 0:
        return f"A worker process ended with exit code {code}; what it said of that stands above."
    memory = ", as the system does when memory is short" if code == -signal.SIGKILL else ""
    return f"A worker process was ended from outside by {signal.Signals(-code).name}{memory}. Start again."


def _serve(work: Callable[[range], Result], pipe: Connection, others: list[Connection]) -> None:
    """Be a worker until the process that started it closes the pipe, or is gone; a request to stop is for that one."""
    for other in others:  # the parent's ends: as long as a worker held one, none would learn that the parent is gone
        other.close()
    for request in STOPPING:
        signal.signal(request, signal.SIG_IGN)
    show_stacks()
    gc.freeze()  # collecting what was inherited would copy it
    cv2.setNumThreads(0)
    for number, task in _received(pipe):
        result = work(task)
        with suppress(ConnectionError):  # it is no longer wanted
            pipe.send((number, result))


def _received(pipe: Connection) -> Iterator[Any]:
    with suppress(EOFError, ConnectionError):
        while True:
            yield pipe.recv()
