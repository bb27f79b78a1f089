"""Files that are there whole or not at all, hashes of what they hold, and opening none that could keep one waiting."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor

FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""Of errors: there is no room, or a user may have no more of it."""
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
YOUNG = 60.0  # seconds in which a file that nobody holds may be one that its writer is about to lock


class NoRoomError(OSError):
    """A file could not be written for want of room; the message is one line with file, need and free space."""

    def __init__(self, path: Path, error: OSError, need: int | None = None) -> None:
        super().__init__(
            f"cannot write {path}: {error.strerror} ({room(path, need)}). What was there before is untouched."
        )
        self.errno, self.strerror = error.errno, error.strerror


def room(path: Path, need: int | None = None) -> str:
    """Say what a file needs, if that is known, and what is free where it is to lie."""
    needs = "" if need is None else f"it needs {need / 2**20:,.1f} MiB, "
    try:
        return f"{needs}{shutil.disk_usage(path.parent).free / 2**20:,.1f} MiB are free"
    except OSError:
        return f"{needs}its folder cannot be looked at"


# Opening a FIFO waits for somebody who writes into it, unless told not to; the last is Windows' own.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_SPECIAL = {
    stat.S_IFDIR: "a folder, not a file",
    stat.S_IFIFO: "a FIFO, not a file",
    stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
}


def open_regular(path: str | os.PathLike[str]) -> int:
    """Open a file for reading and return its handle; what is no file is refused, and never waited for.

    Raises:
        OSError: there is nothing, it may not be read, or it is a FIFO, a socket, a device or a folder; `strerror` says.
    """
    try:
        handle = os.open(path, _READ)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ELOOP, errno.EOPNOTSUPP):  # as a socket and a loop of links answer
            raise OSError(error.errno, what_is_there(path), os.fspath(path)) from None
        raise
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, _SPECIAL.get(stat.S_IFMT(mode), "not a file"), os.fspath(path))


def opened(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading, see `open_regular`."""
    return os.fdopen(open_regular(path), "rb")


def what_is_there(path: str | os.PathLike[str]) -> str:
    """Say what stands at a path where a file should that can be read."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a link to a file that is not there" if os.path.islink(path) else "no such file"
    except OSError as error:
        return "a link that leads in a circle" if error.errno == errno.ELOOP else error.strerror or str(error)
    return _SPECIAL.get(stat.S_IFMT(mode), "a file that cannot be read")


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path in which `~` at the beginning is the home folder of a user.

    Raises:
        ValueError: there is no user of that name, or none is known.
    """
    text = os.fspath(path)
    found = os.path.expanduser(text)
    if text.startswith("~") and found == text:
        user, _, _ = text.partition("/")
        raise ValueError(f"{text}: there is no home folder {user}; what is called so is written ./{text}.")
    return Path(found)


def refuse_special(path: Path) -> None:
    """Refuse to put a file where something stands that is none: root would replace `/dev/null` for everybody.

    Raises:
        OSError: a FIFO, a socket or a device stands there, or the path leads to one; `strerror` says.
    """
    with suppress(FileNotFoundError):
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind in _SPECIAL and kind != stat.S_IFDIR:
            raise OSError(errno.EINVAL, _SPECIAL[kind], os.fspath(path))


def make_folder(folder: Path, advice: str, *, exist_ok: bool = True) -> None:
    """Make a folder, and those that it lies in.

    Args:
        folder: what to make.
        advice: what to do where it may not be made, in a sentence.
        exist_ok: whether it may be there.

    Raises:
        FileExistsError: it is there.
        PermissionError: it may not be made there; the message names it whole, and holds the advice.
    """
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise PermissionError(f"cannot make the folder {folder.absolute()}: {error.strerror}. {advice}") from error


Identity = tuple[int, int, int]
"""What tells a file from the one that took its place, whatever clocks say: its number, size, and time in ns."""


def identity(path: Path) -> Identity | None:
    """Return what tells the file at a path from others that were or will be there; None where there is none."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of ``path`` in one step when the block ends without an error.

    Readers see the file that was there or the whole new one, never a part. A power cut may still lose what was written;
    see `write_atomic` for what must be on the disk.

    Raises:
        NoRoomError: the disk is full, or a quota; ``path`` is untouched.
        OSError: the folder cannot be written, or as `refuse_special`.
    """
    refuse_special(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            hold(file.fileno())  # as long as it is, nobody sweeps it away
            yield file
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in FULL and not isinstance(error, NoRoomError):
            raise NoRoomError(path, error) from error
        raise


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that ``path`` holds either its old content or all of the new one, after a power cut too.

    Raises:
        OSError: as `replacing`.
    """
    try:
        with replacing(path) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except NoRoomError as error:
        raise NoRoomError(path, error, len(data)) from error
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; folders cannot be opened for this on Windows."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


# -- what dead writers left --------------------------------------------------------------------------------------------
def hold(handle: int, *, shared: bool = False) -> bool:
    """Lock an open file until it is closed; the kernel lets it go when its process ends, however it does.

    Returns:
        Whether that was possible: no other process holds it, and files can be locked there.
    """
    try:
        import fcntl
    except ImportError:  # on Windows, where nobody can delete what is open
        return False
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sweep(folder: Path, *, alone: bool = False) -> list[Path]:
    """Delete the temporary files in a folder whose writers are gone, and return them.

    Args:
        folder: is left alone if it is not there.
        alone: no other process writes there, so that every such file is of one that is gone.
    """
    swept = []
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            if TEMPORARY.fullmatch(path.name) and (alone or _is_abandoned(path)):
                path.unlink()
                swept.append(path)
    return swept


def _is_abandoned(path: Path) -> bool:
    """Whether nobody holds a file, and it is too old for one that is about to be held."""
    with opened(path) as file:
        return abs(time.time() - path.stat().st_mtime) > YOUNG and hold(file.fileno())


def sha256_of(path: str | Path) -> str:
    """Return the checksum of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the sha256 over names, kinds and bytes of tensors; waits for the device."""
    import torch  # here, because files are also written where torch is not loaded

    total = hashlib.sha256()
    for name, tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(flat.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def short_digest(*parts: bytes) -> int:
    """Return a hash of bytes as a number of 64 bits with a sign, to keep in an array."""
    return int.from_bytes(hashlib.blake2b(b"".join(parts), digest_size=8).digest(), "little", signed=True)
