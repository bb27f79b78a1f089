"""Files that are there whole or not at all, hashes of what they hold, and opening none that could keep one waiting."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor

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


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of ``path`` in one step when the block ends without an error.

    Readers see the file that was there or the whole new one, never a part. A power cut may still lose what was written;
    see `write_atomic` for what must be on the disk.

    Raises:
        OSError: the disk is full, or the folder cannot be written; ``path`` is untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that ``path`` holds either its old content or all of the new one, after a power cut too.

    Raises:
        OSError: as `replacing`.
    """
    with replacing(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; folders cannot be opened for this on Windows."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the sha256 over names, kinds and bytes of tensors; waits for the device."""
    import torch  # here, because files are also written where torch is not loaded

    total = hashlib.sha256()
    for name, tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(flat.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
