"""The folder of a run: one run takes its name, and one process writes it."""

from __future__ import annotations

import datetime
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from eyas.config.folders import ELSEWHERE
from eyas.files import make_folder, sweep, write_atomic
from eyas.log import warn

LOCK = "run.lock"  # there while a run is, and left over by one that was killed; the kernel's lock on it counts
DESCRIPTION = "options.yaml"  # there as soon as a run has begun
WEIGHTS = "weights"
OUTCOME = "result.json"  # there when it has ended, its last evaluation and pictures included


class FolderInUse(ValueError):
    """Another process writes this run's folder."""


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder has come to its end, and lacks nothing."""
    return (folder / OUTCOME).exists()


def note_begin(folder: Path) -> None:
    """Forget that a run in the folder has ended: one begins, or goes on."""
    (folder / OUTCOME).unlink(missing_ok=True)


def note_end(folder: Path, outcome: Mapping[str, object]) -> None:
    """Write what a run has come to, and that it has."""
    write_atomic(folder / OUTCOME, json.dumps(outcome, indent=2).encode())


def claim(folder: Path) -> bool:
    """Take a folder for a new run; return whether no other run had taken it.

    A folder that somebody made without a run in it may be taken.
    """
    make_folder(folder, ELSEWHERE)
    try:
        (folder / LOCK).touch(exist_ok=False)
    except (FileExistsError, FileNotFoundError):  # in it is a run that begins, or one that just gave it up
        return False
    if (folder / DESCRIPTION).exists():  # looked at only now: a run in it may have ended meanwhile
        give_up(folder)
        return False
    return True


def give_up(folder: Path) -> None:
    """Take back a claim, unless another process writes the folder; it goes if nothing is in it."""
    with suppress(FolderInUse), sole_writer(folder):
        pass


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Be the one process that writes a folder inside the block; a process that dies holds its folder no longer.

    A folder into which nothing was written is gone afterwards.

    Raises:
        FolderInUse: another run writes it, here or on another host; names the process.
    """
    held = [lock(folder)]
    for place in (folder, folder / WEIGHTS):
        sweep(place, alone=True)

    def forget() -> None:  # in a forked process, which loads data and may outlive this one
        while held:
            os.close(held.pop())

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)
    try:
        yield
    finally:
        if held:
            with suppress(OSError):
                (folder / LOCK).unlink()
                folder.rmdir()
            forget()


def lock(folder: Path) -> int:
    """Return the handle of a folder's lock file, locked until it is closed, with this process's name in it."""
    make_folder(folder, ELSEWHERE)
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not try_lock(handle):
            with os.fdopen(handle, encoding="utf-8") as file:
                holder = file.read() or "another process"
            raise FolderInUse(
                f"{folder} is being written by {holder}. Wait until that run has ended, or stop it; a new run may have "
                "another name."
            )
        if is_still(handle, path):
            break
        os.close(handle)  # its holder gave it up while we asked
    os.ftruncate(handle, 0)
    since = datetime.datetime.now().isoformat(" ", "seconds")
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()} (since {since})".encode())
    return handle


def is_still(handle: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def try_lock(handle: int) -> bool:
    """Lock a file unless another handle has; the kernel unlocks it when its process ends, however it does."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, 1 << 20, os.SEEK_SET)  # a byte that nobody reads: others could not read what is locked
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(handle, 0, os.SEEK_SET)
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        warn(f"files cannot be locked here ({error.strerror}): see to it that only one run writes its folder.")
    return True
