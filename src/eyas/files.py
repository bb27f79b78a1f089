"""Files that are there whole or not at all, and hashes of what they hold."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor


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
