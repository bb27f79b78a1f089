"""The end of a run that hangs: who makes no progress for long is named, and the stacks of all processes are shown.

A thread of each process counts the seconds since the last progress. One that has counted too many asks the others,
over the store in which they met, where they are: the one that is behind all others, or does not answer, is the cause.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar

from eyas import dist
from eyas.launch.interrupt import Stalled
from eyas.log import LOGGER
from eyas.signals import STDERR, show_workers

if TYPE_CHECKING:
    from torch.distributed import Store

T = TypeVar("T")

LEAST = 120.0  # seconds: no measured pace leads to less
FACTOR = 10.0  # so many times the longest step so far: a first batch of another shape, a slow disk, a busy host
UNMEASURED = dist.PATIENCE.total_seconds()  # what comes once in an epoch or later may be anything that users do
TICK = 1.0  # seconds between two looks
STOPPED = 2.0  # a look counts no more, so that a process that was stopped for hours and goes on is not blamed for it
ANSWER = 10.0  # seconds that other processes have to say where they are
DEBUGGERS = ("pdb.py", "bdb.py", "pydevd", "debugpy")  # a person who looks around is no hang


class Stage(IntEnum):
    """What a process does with a batch, in order."""

    LOADING = 0
    TRAINING = 1
    VALIDATING = 2
    BETWEEN = 3


SAYS = {
    Stage.LOADING: "waits for its next batch",
    Stage.TRAINING: "is in a training step",
    Stage.VALIDATING: "validates",
    Stage.BETWEEN: "is between two epochs (metrics, files, callbacks)",
}


@dataclass(frozen=True)
class Report:
    """Where a process is.

    Attributes:
        rank, pid: which one.
        epoch, step, stage: how far it has come, 0-based.
        suspect: who it waits for, in words; empty for itself.
        late: whether it has made no progress for too long by its own clock.
    """

    rank: int
    pid: int
    epoch: int
    step: int
    stage: int
    suspect: str
    late: bool

    def text(self) -> str:
        """Say it for people."""
        where = f"epoch {self.epoch + 1}, batch {self.step + 1}"
        why = f": {self.suspect}" if self.suspect else ""
        return f"process {self.rank} (pid {self.pid}) {SAYS[Stage(self.stage)]} in {where}{why}"


class Watch:
    """Counts the seconds without progress, and ends the run when they are too many.

    Args:
        timeout: seconds; None for what the measured pace leads to, 0 for no watch.
        suspect: says who the process waits for when it waits for a batch; asked with the stage.
        end: is told the reason, in the watching thread, and ends the run.
    """

    def __init__(self, timeout: float | None, suspect: Callable[[Stage], str], end: Callable[[Stalled], None]) -> None:
        self.timeout, self.suspect, self.end = timeout, suspect, end
        self.epoch = self.step = 0
        self.stage = Stage.BETWEEN
        self.waited = self.longest = 0.0
        self.since = time.monotonic()
        self.is_measured = False
        self.rounds = 0
        self.over = threading.Event()
        self.thread: threading.Thread | None = None
        self.watched = threading.get_ident()

    def effects(self) -> dict[str, object]:
        """Return how long it waits, by option."""
        return {} if self.timeout is None else {"stall_timeout": self.timeout}

    def __enter__(self) -> Watch:
        self.watched = threading.get_ident()
        if self.timeout != 0:
            self.thread = threading.Thread(target=self.look_on, name="eyas-watch", daemon=True)
            self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.over.set()
        thread, self.thread = self.thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(TICK)

    # -- progress ------------------------------------------------------------------------------------------------------
    def over_batches(self, batches: Iterable[T], epoch: int, first: int) -> Iterator[T]:
        """Yield the batches of an epoch; each that comes, and each that was trained on, is progress."""
        iterator = iter(batches)
        self.epoch, self.step = epoch, first
        while True:
            self.beat(Stage.LOADING)
            try:
                batch = next(iterator)
            except StopIteration:
                break
            self.beat(Stage.TRAINING)
            yield batch
            self.step += 1
        self.beat(Stage.BETWEEN)

    def validates(self, more: bool) -> None:
        """Be told of a batch of a validation, and whether another one is to come."""
        self.beat(Stage.VALIDATING if more else Stage.BETWEEN)

    def beat(self, stage: Stage) -> None:
        """Be told of progress."""
        now = time.monotonic()
        if self.stage is not Stage.BETWEEN:
            self.longest = max(self.longest, now - self.since)
        self.since, self.waited, self.stage = now, 0.0, stage

    def announce(self) -> None:
        """Say once, when an epoch lies behind, how long the run waits from now on."""
        if not self.is_measured and self.timeout is None:
            self.is_measured = True
            LOGGER.info(
                "the longest step took %.2g s: a run that makes no progress for %.0f s is ended (stall_timeout)",
                self.longest, self.limit(Stage.TRAINING),
            )  # fmt: skip

    def limit(self, stage: Stage) -> float:
        """Seconds without progress that are too many."""
        if self.timeout is not None:
            return self.timeout
        if stage is Stage.BETWEEN or not self.is_measured:
            return UNMEASURED
        return max(LEAST, FACTOR * self.longest)

    # -- in the thread that looks on -----------------------------------------------------------------------------------
    def look_on(self) -> None:
        """Look every second, until the run is over or has to be ended."""
        before = time.monotonic()
        while not self.over.wait(TICK):
            now = time.monotonic()
            self.waited += min(now - before, STOPPED)
            before = now
            late = self.waited > self.limit(self.stage) and not self.is_debugged()
            if (late or self.is_asked()) and (reason := self.verdict(late)):
                self.show()
                self.end(Stalled(reason))
                return

    def is_debugged(self) -> bool:
        """Whether a person has stopped the training to look at it."""
        frame = sys._current_frames().get(self.watched)
        while frame is not None:
            if any(name in frame.f_code.co_filename for name in DEBUGGERS):
                return True
            frame = frame.f_back
        return False

    def verdict(self, late: bool) -> str:
        """Return who holds the run up; empty if nobody does it for too long by his own clock."""
        seconds, own = self.waited, self.report(late)
        reports = self.exchange(own)
        self.rounds += 1
        missing = [rank for rank in range(dist.world_size()) if rank not in {report.rank for report in reports}]
        slowest = min(reports, key=lambda report: (report.epoch, report.step, report.stage))
        if not missing and not slowest.late:
            self.waited = 0.0
            return ""
        who = f"process {missing[0]} does not answer" if missing else slowest.text()
        return (
            f"no progress for {seconds:.0f} s: {who}. Stacks of all processes are on the error output. "
            "stall_timeout=SECONDS waits longer, stall_timeout=0 for ever."
        )

    def report(self, late: bool) -> Report:
        """Return where this process is."""
        stage = self.stage
        return Report(dist.rank(), os.getpid(), self.epoch, self.step, int(stage), self.suspect(stage), late)

    def is_asked(self) -> bool:
        """Whether another process wants to know where this one is."""
        store = dist.store()
        with suppress(RuntimeError):  # it went with the process that holds it
            return store is not None and store.check([f"stall/{self.rounds}"])
        return False

    def exchange(self, own: Report) -> list[Report]:
        """Return where all processes are that answer in time."""
        store = dist.store()
        if store is None:
            return [own]
        found = {own.rank: own}
        with suppress(RuntimeError):
            store.set(f"stall/{self.rounds}", "asked")
            store.set(f"stall/{self.rounds}/{own.rank}", json.dumps(asdict(own)))
            deadline = time.monotonic() + ANSWER
            while len(found) < dist.world_size() and time.monotonic() < deadline:
                time.sleep(0.2)
                found |= {rank: self.read(store, rank) for rank in self.answered(store) if rank not in found}
        return list(found.values())

    def answered(self, store: Store) -> list[int]:
        """Return the processes that have answered."""
        return [rank for rank in range(dist.world_size()) if store.check([f"stall/{self.rounds}/{rank}"])]

    def read(self, store: Store, rank: int) -> Report:
        """Return the answer of a process."""
        return Report(**json.loads(store.get(f"stall/{self.rounds}/{rank}")))

    def show(self) -> None:
        """Print the stacks of this process and of those that load its images."""
        os.write(STDERR, f"\nprocess {dist.rank()} (pid {os.getpid()}) {SAYS[self.stage]}:\n".encode())
        faulthandler.dump_traceback(STDERR, all_threads=True)
        show_workers()
