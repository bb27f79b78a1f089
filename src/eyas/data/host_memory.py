"""Memory that the processes of one host share without having a common parent, as processes of one training do.

It is a file without a name: in memory on Linux (/dev/shm), in the folder for temporary files elsewhere. The first
process makes it under a name that all can work out, each maps it, and the last one removes the name, so that the system
frees it when the last process ends, however it ends. Processes that die before that leave a name behind; the next one
to come here finds that nobody holds it any more and removes it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from eyas.data.cache import remove_name, same_file

SUPPORTED = sys.platform != "win32"  # no name of an open file can be removed there


class HostMemory:
    """`size` bytes of shared memory, zero at first.

    Args:
        name: what it holds; processes of a user that give the same name get the same memory. Name the run, too.
        size: bytes, > 0; the same in all processes.
        rank: number of this process on the host, 0-based.
        processes: how many will come for it.

    Attributes:
        buffer: (size,) uint8.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, name: str, size: int, *, rank: int, processes: int) -> None:
        assert 0 <= rank < processes
        remove_abandoned()
        self.size = size
        self._handle = _attach(_path(name), size, rank=rank, processes=processes)
        # Ends before all have come, say by an error in one of them: the name must not stay.
        weakref.finalize(self, _leave, os.getpid(), self._handle, _path(name))
        self._map()

    @staticmethod
    def exists(name: str) -> bool:
        """Whether another process has already made this memory and still waits for others."""
        return _path(name).exists()

    def _map(self) -> None:
        self.buffer = np.frombuffer(mmap.mmap(self._handle, self.size), np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        """State for a process that is being started: the open file itself is handed over."""
        from multiprocessing.reduction import DupFd

        return {"size": self.size, "handle": DupFd(self._handle)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.size, self._handle = state["size"], state["handle"].detach()
        self._map()


def _folder() -> Path:
    return Path("/dev/shm") if os.path.isdir("/dev/shm") else Path(tempfile.gettempdir())


def _prefix() -> str:
    return f"eyas-{os.getuid()}-"


def _path(name: str) -> Path:
    return _folder() / (_prefix() + hashlib.sha256(name.encode()).hexdigest()[:24])


def _attach(path: Path, size: int, *, rank: int, processes: int) -> int:
    """Return a handle of the file, made if it is not there; behind its `size` bytes lies a mark of each process."""
    import fcntl

    while True:
        # The name is easy to guess: no link is followed, and no file of another user is taken.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.getuid() or info.st_size not in (0, size + processes):
            os.close(handle)
            raise OSError(f"{path} is not shared memory of this training; remove it")
        fcntl.flock(handle, fcntl.LOCK_SH)  # held for life: says that somebody still uses the file
        if same_file(handle, path):
            break
        os.close(handle)  # it was removed as abandoned between the two calls
    os.ftruncate(handle, size + processes)
    os.pwrite(handle, b"\1", size + rank)
    if os.pread(handle, processes, size) == b"\1" * processes:
        remove_name(handle, path)
    return handle


def remove_abandoned() -> None:
    """Remove files whose processes all died before everybody had come."""
    import fcntl

    for path in _folder().glob(_prefix() + "*"):
        try:
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue  # just removed by another
        try:
            if os.fstat(handle).st_uid == os.getuid():
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_name(handle, path)
        except OSError:
            pass  # in use, or not a file that can be locked
        finally:
            os.close(handle)


def _leave(owner: int, handle: int, path: Path) -> None:
    if os.getpid() == owner:  # forked workers have a copy of this object too
        remove_name(handle, path)
        os.close(handle)
