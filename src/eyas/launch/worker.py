"""One process of a training in several, started by `launcher`: ``python -m eyas.launch.worker FOLDER PARENT``.

The user's script is not run here. The trainer arrives whole, does its part, and its result or error goes back.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from functools import partial
from pathlib import Path

from eyas import dist
from eyas.files import write_atomic
from eyas.parent import follow
from eyas.signals import show_stacks

GRACE = 30.0  # seconds for saving when the parent is gone, or for a clean end after an error


def main(folder: Path, parent: int) -> int:
    """Run this process's part and return its exit code."""
    follow(parent, save_and_end)
    limit_threads()
    from eyas.launch import handover  # imports torch, which reads the number of threads once
    from eyas.launch.interrupt import Interrupted

    handover.occupy(folder)  # until this process ends, though its launcher may be gone before
    handover.process_file(folder, dist.rank()).write_text(str(os.getpid()))
    show_stacks()
    try:
        trainer, arrived = handover.unpack(handover.payload_file(folder).read_bytes())
        if dist.restarts():
            trainer.resume_here(handover.causes(folder))
        trainer.leave = partial(leave, folder)
        result = trainer.run_here()
        if dist.is_main():
            handover.write_outcome(folder, result, arrived)
    except BaseException as error:
        report(folder, error)
        end_within(GRACE)
        # All processes were asked to stop, and did: no failure, after which the launcher would start them again.
        return 0 if isinstance(error, Interrupted) else 1
    return 0


def report(folder: Path, error: BaseException) -> None:
    """Leave the reason why this process ends."""
    from eyas.launch import handover

    failure = handover.describe_failure(dist.rank(), error)
    write_atomic(handover.failure_file(folder, dist.restarts(), dist.rank()), pickle.dumps(failure))


def leave(folder: Path, error: BaseException) -> None:
    """End this process, whose main thread cannot be reached."""
    report(folder, error)
    os._exit(1)


def limit_threads() -> None:
    """Share the cores between the processes of this host, unless the user has said how many threads to use."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        os.environ["OMP_NUM_THREADS"] = str(max(cores // dist.local_world_size(), 1))


def save_and_end() -> None:
    """Save and end, as the process that launched the run is gone: nobody would ever end this one."""
    end_within(GRACE)
    os.kill(os.getpid(), signal.SIGTERM)


def end_within(seconds: float) -> None:
    """End this process at the latest then, whatever it waits for: a peer that is gone, or a library's own thread."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # somebody may be reading along
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
