"""Where the data of a training lie, seen from another folder than it was started in."""

from __future__ import annotations

from pathlib import Path

from eyas.data.dataset_yaml import EMBEDDED

SUFFIXES = ("", ".yaml", ".yml")  # that `data=` may leave out


def from_here(data: object, began_in: str | None) -> object:
    """Return what a training called its data as it is called from the working folder; see `from_anywhere`."""
    return data if began_in is None or Path(began_in) == Path.cwd() else from_anywhere(data, began_in)


def from_anywhere(data: object, began_in: str) -> object:
    """Return what a training called its data as it is called from any folder.

    A relative path is meant from the folder that the training was started in, as long as it leads to something there;
    data of the same name elsewhere are others. Names of sets, addresses and absolute paths are the same everywhere.

    Args:
        data: the option; all but a text is returned as it is.
        began_in: the working folder of the training.
    """
    if not isinstance(data, str) or data in EMBEDDED or "://" in data or Path(data).is_absolute():
        return data
    there = Path(began_in) / data
    return str(there) if any(Path(f"{there}{suffix}").exists() for suffix in SUFFIXES) else data
