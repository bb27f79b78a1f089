"""Where Eyas keeps what it derives from data: never inside the data folder, never as code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eyas.files import expanded


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """Folder for derived files: `cache_dir`, else $EYAS_CACHE, else the platform's cache folder + "eyas".

    The folder is not created here.
    """
    if cache_dir is not None:
        return expanded(cache_dir)
    if os.environ.get("EYAS_CACHE"):
        return expanded(os.environ["EYAS_CACHE"])
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "eyas"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(base) / "eyas"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process of this host at a time run the block for `path`; others wait. A process that dies lets go.

    Where locks or the folder are not to be had (Windows, some network disks, a read-only cache) the block runs without
    one, and processes may do the same work side by side.
    """
    lock = path.with_name(path.name + ".lock")
    handle = _lock(lock)
    try:
        yield
    finally:
        if handle is not None:
            remove_name(handle, lock)
            os.close(handle)


def _lock(path: Path) -> int | None:
    if sys.platform == "win32":
        return None
    import fcntl

    handle = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if same_file(handle, path):
                return handle
            os.close(handle)  # the one before us removed it; another may have made a new one
            handle = None
    except OSError:
        if handle is not None:
            os.close(handle)
        return None


def same_file(handle: int, path: Path) -> bool:
    """Whether a name still leads to an open file."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(handle))


def remove_name(handle: int, path: Path) -> None:
    """Remove the name of an open file, unless it leads to another file by now."""
    if same_file(handle, path):
        path.unlink(missing_ok=True)
