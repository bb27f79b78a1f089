"""Where Eyas keeps what it derives from data: never inside the data folder, never as code."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """Folder for derived files: `cache_dir`, else $EYAS_CACHE, else the platform's cache folder + "eyas".

    The folder is not created here.
    """
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if os.environ.get("EYAS_CACHE"):
        return Path(os.environ["EYAS_CACHE"]).expanduser()
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "eyas"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "eyas"


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create or replace `path` in one step: readers see the old file or the whole new one, never a part.

    Raises:
        OSError: the folder cannot be written or the disk is full; the old file is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
