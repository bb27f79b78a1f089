"""Run one training in several processes of this machine, under torch's elastic launcher.

The launcher starts ``python -m eyas.launch.worker``, watches the processes, ends the others when one dies, and starts
them again if the run may restart. Across machines, and wherever else somebody launches, it is done by
``torchrun -m eyas train ...``.
"""

from __future__ import annotations

import codecs
import faulthandler
import gc
import logging
import os
import signal
import site
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import IO, TYPE_CHECKING, Protocol, TextIO, TypeVar

from eyas import dist, notebook
from eyas.config import TrainOptions
from eyas.files import Identity, identity, write_atomic
from eyas.launch import handover
from eyas.launch.handover import Failure
from eyas.launch.interrupt import ONE_REQUEST, Interrupted, Stalled
from eyas.log import command
from eyas.signals import PATIENT, STOPPING, URGENT, WHERE, silent, unclaimed

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
    from torch.distributed.launcher.api import LaunchConfig

GRACE = 30  # seconds that processes have to save after Ctrl-C, or to end after another one died
TAIL = 30  # last lines of output shown of a process that died without a word
STACKS = 1.0  # seconds after which what processes were doing is shown

Result = TypeVar("Result", covariant=True)


class Launchable(Protocol[Result]):
    """What is run in every process: a training, ``result`` its outcome.

    Attributes:
        args: its options.
        last: where its latest checkpoint lies, or will lie.
    """

    args: TrainOptions
    last: Path

    def run_here(self) -> Result:
        """Be one of the processes."""

    def resume_here(self, causes: Iterable[BaseException] = ()) -> None:
        """Go on from ``last``, after a crash; ``causes``: what has ended processes of the run so far."""


class WorkerError(RuntimeError):
    """A process of a training failed.

    Attributes:
        rank: its number.
        text: its traceback, or the last lines it wrote.
    """

    def __init__(self, message: str, rank: int = 0, text: str = "") -> None:
        super().__init__(f"{message}\n\n{text}" if text else message)
        self.rank, self.text = rank, text


class KilledError(WorkerError, ChildProcessError):
    """A process of a training was ended from outside, or ended without a word: for people, not for a debugger."""


def launch(trainer: Launchable[Result], processes: int) -> Result:
    """Train in so many processes and return the main one's result.

    Args:
        trainer: not set up yet. It is pickled whole, and every process calls ``run_here()`` of its copy.
        processes: how many, at least 2.

    Raises:
        ValueError: something in the trainer cannot be pickled; no process was started.
        Interrupted: Ctrl-C or SIGTERM; the processes were told, and have saved if training had begun.
        WorkerError: a process failed or died. Errors meant for users (ours, ``ValueError``, ``OSError``) are raised as
            they are, from a ``WorkerError`` with the process's traceback.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    payload, sent = handover.pack(trainer, processes)
    before = None if trainer.args.resume else identity(trainer.last)
    handover.sweep_folders()
    with (
        TemporaryDirectory(prefix=handover.PREFIX, ignore_cleanup_errors=True) as name,
        ExitStack() as stack,
    ):
        folder = Path(name)
        stack.callback(os.close, handover.occupy(folder))
        write_atomic(handover.payload_file(folder), payload)
        config = launch_config(folder, processes, trainer.args.restarts, shown=writes_to_terminal())
        command = ("-P", "-m", "eyas.launch.worker", str(folder), str(os.getpid()))
        try:
            with (
                environment(folder),
                quiet_launcher(),
                closed_files(),
                stop_signals(folder),
                followed(folder / "logs", writes_to_terminal()),
                notebook.mirrored(folder / "shown"),
            ):
                elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            raise_cause(folder, error, processes, attempt=trainer.args.restarts)
        except SignalException as error:
            raise_interrupted(folder, str(error), trainer.last, before)
        if interrupted := saved_interrupt(folder):
            raise interrupted
        return handover.read_outcome(folder, sent)


def launch_config(folder: Path, processes: int, restarts: int, shown: bool) -> LaunchConfig:
    """Return how the launcher works: alone on this machine, no port open, output of all but the first into files."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.launcher.api import LaunchConfig

    from eyas.launch import meeting  # imports parts of torch that few runs need

    meeting.register()
    files = dict.fromkeys(range(processes), Std.ALL) | ({0: Std.NONE} if shown else {})
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=folder.name,
        role="eyas",
        rdzv_backend=meeting.BACKEND,
        local_addr="localhost",
        max_restarts=restarts,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs"), redirects=files),
        signals_to_handle="SIGSYS",  # it wants one; those that anybody sends are ours, see stop_signals
    )


# -- around the launcher -----------------------------------------------------------------------------------------------
@contextmanager
def environment(folder: Path) -> Iterator[None]:
    """Let new interpreters find this library and each other, and leave the environment as it was."""
    names = ("PYTHONPATH", dist.MEETING_FILE, "TORCHELASTIC_SIGNALS_TO_HANDLE")  # the launcher sets the last one
    before = {name: os.environ.get(name) for name in names}
    root = str(Path(__file__).parents[2])
    if root not in (*site.getsitepackages(), site.getusersitepackages()):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, before["PYTHONPATH"])))
    os.environ[dist.MEETING_FILE] = str(folder / "meeting")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def quiet_launcher() -> Iterator[None]:
    """Silence the launcher's own log: what happened is said once, by the error that is raised."""
    prefix = "torch.distributed.elastic"
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith(prefix)]
    before = [(logger, logger.level) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)


@contextmanager
def closed_files() -> Iterator[None]:
    """Close the log files that the launcher leaves open, now and without the warnings that Python has for that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            yield
        finally:
            gc.collect()


@contextmanager
def stop_signals(folder: Path) -> Iterator[None]:
    """Pass requests to stop on to the processes as Ctrl-C; a second one by a person ends them at once.

    SIGQUIT shows what all of them do, and the run goes on.

    SIGTERM is not passed on as it is: the launcher would send it to whole process groups, and so end what the user's
    code has started there before those that train can save.
    """
    from torch.distributed.elastic.multiprocessing import SignalException

    received: list[float] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received and number in PATIENT:
            return
        received.append(time.monotonic())
        if received[-1] - received[0] >= ONE_REQUEST:
            kill_processes(folder)
        elif len(received) == 1:
            raise SignalException(signal.Signals(number).name, signal.SIGINT)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in STOPPING if number in URGENT or unclaimed(number)]
    before = {number: signal.signal(number, handle) for number in taken}
    before |= {number: signal.signal(number, partial(ask_where, folder)) for number in WHERE if silent(number)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def kill_processes(folder: Path) -> None:
    """End all processes of the run, and what they started, without asking."""
    for path in folder.glob("process-*"):
        try:
            os.killpg(int(path.read_text()), signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue  # it ended by itself


def ask_where(folder: Path, number: int, frame: FrameType | None) -> None:
    """Show what this process and all of the run are doing; what goes into files is shown a little later."""
    faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
    said = {path: path.stat().st_size for path in (folder / "logs").glob("*/attempt_*/[!0]*/stderr.log")}
    for path in folder.glob("process-*"):
        with suppress(ProcessLookupError, PermissionError, ValueError):
            os.kill(int(path.read_text()), number)
    timer = threading.Timer(STACKS, show_since, (said,))
    timer.daemon = True
    timer.start()


def show_since(said: Mapping[Path, int]) -> None:
    """Show what was written into files beyond their former sizes."""
    for path, size in said.items():
        with suppress(OSError), path.open("rb") as file:
            file.seek(size)
            print(f"Process {path.parent.name}:\n{file.read().decode(errors='replace')}", file=sys.stderr, flush=True)


# -- output ------------------------------------------------------------------------------------------------------------
def writes_to_terminal() -> bool:
    """Whether what a child process prints appears where this one's does; in notebooks and captures it does not."""
    try:
        return (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
    except (OSError, AttributeError, ValueError):
        return False


@contextmanager
def followed(logs: Path, shown: bool) -> Iterator[None]:
    """Write what the main process writes to ``sys.stdout`` and ``sys.stderr`` as they are now, unless it is shown."""
    finished = threading.Event()
    streams = {} if shown else {"stdout.log": sys.stdout, "stderr.log": sys.stderr}
    threads = [notebook.in_this_cell(follow, logs, name, stream, finished) for name, stream in streams.items()]
    try:
        yield
    finally:
        finished.set()
        for thread in threads:
            thread.join()


def follow(logs: Path, name: str, stream: TextIO, finished: threading.Event) -> None:
    """Copy what appears in the main process's file, over all attempts, until finished and read to the end."""
    files: dict[Path, tuple[IO[bytes], codecs.IncrementalDecoder]] = {}
    while True:
        last = finished.is_set()
        for path in sorted(logs.glob(f"*/attempt_*/0/{name}")):
            if path not in files:
                files[path] = path.open("rb"), codecs.getincrementaldecoder("utf-8")("replace")
            file, decoder = files[path]
            if text := decoder.decode(file.read()):
                stream.write(text)
                stream.flush()
        if last:
            break
        finished.wait(0.1)
    for file, _ in files.values():
        file.close()


def last_lines(folder: Path, attempt: int, rank: int) -> str:
    """Return the end of what a process wrote into its files."""
    paths = [*(folder / "logs").glob(f"*/attempt_{attempt}/{rank}/std*.log")]
    lines = [line for path in sorted(paths) for line in path.read_text(errors="replace").splitlines()[-TAIL:]]
    return "\n".join(lines)


# -- what went wrong ---------------------------------------------------------------------------------------------------
def raise_cause(folder: Path, error: ChildFailedError, processes: int, attempt: int) -> None:
    """Raise what failed first; that the others then missed it is no news."""
    reported = handover.read_failures(folder).get(attempt, [])
    causes = [failure for failure in reported if not failure.lost_peer]
    killed = {rank: failure for rank, failure in error.failures.items() if failure.exitcode < 0}
    if causes:
        if isinstance(causes[0].exception(), Stalled):
            show_since(dict.fromkeys((folder / "logs").glob(f"*/attempt_{attempt}/[!0]*/stderr.log"), 0))
        raise_failure(causes[0], processes)
    elif killed or not reported:
        raise died(folder, killed or error.failures, processes, attempt) from None
    raise_failure(reported[0], processes)


def raise_failure(failure: Failure, processes: int) -> None:
    """Raise what a process reported: its own exception if that is meant for users, else its traceback."""
    where = f"process {failure.rank} of {processes} failed"
    exception = failure.exception()
    if exception is not None and is_for_users(exception):
        raise exception from WorkerError(where, failure.rank, failure.text)
    raise WorkerError(f"{where}: {failure.message}", failure.rank, failure.text) from None


def is_for_users(error: BaseException) -> bool:
    """Whether an error tells the user what to change, as opposed to one that shows where code broke."""
    return isinstance(error, ValueError | OSError) or type(error).__module__.partition(".")[0] == "eyas"


def died(folder: Path, failures: Mapping[int, ProcessFailure], processes: int, attempt: int) -> KilledError:
    """Return the error for processes that left no traceback."""
    rank, failure = min(failures.items(), key=lambda item: item[1].timestamp)
    if failure.exitcode == -signal.SIGKILL:
        how = "was killed by SIGKILL; the machine may be out of memory"
    elif failure.exitcode < 0:
        how = f"was killed by {failure.signal_name()}"
    else:
        how = f"ended with exit code {failure.exitcode}"
    return KilledError(f"process {rank} of {processes} {how}.", rank, last_lines(folder, attempt, rank))


def raise_interrupted(folder: Path, name: str, last: Path, before: Identity | None) -> None:
    """Raise that the run was stopped, and how to go on; a ``last.pt`` that was there ``before`` is another run's."""
    is_saved = identity(last) not in (None, before)
    again = command("train", f"resume={last}")
    hint = f"Continue from what it saved last with: {again}" if is_saved else "Nothing is saved."
    raise saved_interrupt(folder) or Interrupted(f"stopped by {name}. {hint}") from None


def saved_interrupt(folder: Path) -> Interrupted | None:
    """Return what the processes said when they were stopped and had saved, if they did."""
    reported = [failure for failures in handover.read_failures(folder).values() for failure in failures]
    exceptions = (failure.exception() for failure in sorted(reported, key=lambda f: (-f.time, f.rank)))
    return next((error for error in exceptions if isinstance(error, Interrupted)), None)
