"""Where the data of a training lie, seen from another folder than it was started in."""

from __future__ import annotations

import os
from pathlib import Path

from eyas.data.dataset_yaml import EMBEDDED

SUFFIXES = ("", ".yaml", ".yml")  # that `data=` may leave out


def seen_from(began_in: str, folder: Path) -> str:
    """Return the working folder of a training as a file in ``folder`` notes it: by the way that leads there.

    So the file tells nothing of the disk that it was made on, and what belongs together can move together. On Windows
    no way leads to another drive: there it is the whole path.
    """
    try:
        return os.path.relpath(os.path.realpath(began_in), os.path.realpath(folder))
    except ValueError:
        return began_in


def from_here(data: object, began_in: object, file: str | Path) -> object:
    """Return what a training called its data as it is called from the working folder.

    A relative path is meant from the folder that the training was started in, as long as it leads to something there:
    data of the same name elsewhere are others. Names of sets, addresses and absolute paths are the same everywhere.

    Args:
        data: the option; all but a text is returned as it is.
        began_in: as noted, see `seen_from`; None where it is not.
        file: the checkpoint, or exported file, that notes it.
    """
    if not (isinstance(data, str) and isinstance(began_in, str)):
        return data
    if data in EMBEDDED or "://" in data or Path(data).is_absolute():
        return data
    folder = Path(os.path.realpath(Path(os.path.realpath(file)).parent / began_in))
    found = any(Path(f"{folder / data}{suffix}").exists() for suffix in SUFFIXES)
    return str(folder / data) if found and folder != Path(os.path.realpath(os.curdir)) else data
