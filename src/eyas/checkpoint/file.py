"""Checkpoints: tensors and plain values only, written so that a crash or a full disk leaves the previous one intact."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from eyas.checkpoint.foreign import ForeignFileError, read_weights
from eyas.files import write_atomic

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or is not what was asked for."""


class SaveError(OSError):
    """A checkpoint could not be written; the previous file is untouched."""


def serialise(checkpoint: dict[str, Any]) -> memoryview:
    """Return a checkpoint as bytes; built in memory first so that a full disk is an ``OSError``, not a torch error."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getbuffer()


def check_plain(value: Any, where: str = "checkpoint") -> None:
    """Refuse anything that ``torch.load(weights_only=True)`` would not open.

    Raises:
        CheckpointError: names the place and the type.
    """
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            check_plain(key, where)
            check_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for i, item in enumerate(value):
            check_plain(item, f"{where}[{i}]")
    elif type(value) not in (str, int, float, bool, type(None)) and not isinstance(value, torch.Tensor):
        raise CheckpointError(f"{where} is a {type(value).__name__}; a checkpoint holds tensors and plain values only.")


def save_checkpoint(checkpoint: dict[str, Any], *paths: Path) -> None:
    """Write one checkpoint to one or several files, each atomically.

    Raises:
        CheckpointError: it holds something that is neither a tensor nor a plain value.
        SaveError: a file could not be written; what was there before is untouched.
    """
    check_plain(checkpoint)
    data = serialise(checkpoint)
    for path in paths:
        try:
            write_atomic(path, data)
        except OSError as error:
            kept = "the previous file is untouched" if path.exists() else "nothing was written"
            last = path.parent / "last.pt"
            then = f"continue with resume={last}" if last.exists() else "start again"
            raise SaveError(
                f"cannot write {path} ({len(data) / 2**20:.0f} MiB): {error.strerror or error}; {kept}. "
                f"Free some space and {then}."
            ) from error


def load_checkpoint(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint without running any code that it may contain: one of Eyas, or of the incumbent library.

    Returns:
        The dictionary written by ``save_checkpoint``; of a foreign file, its part that inference needs.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a checkpoint, holding code, of another task, or from a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}.")
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
        checkpoint = _load_foreign(path, map_location)
    if not isinstance(checkpoint, dict) or "eyas" not in checkpoint or "model" not in checkpoint:
        raise CheckpointError(f"{path} is not a checkpoint of Eyas (no 'eyas' and 'model' entries).")
    if checkpoint["eyas"]["format"] > FORMAT:
        raise CheckpointError(f"{path} was written by a newer Eyas ({checkpoint['eyas']['version']}); please update.")
    return checkpoint


def _load_foreign(path: Path, map_location: str | torch.device) -> dict[str, Any]:
    """Read a file that torch will not open as tensors and plain values: as the incumbent's, or say what it is."""
    try:
        checkpoint = read_weights(path)
    except ForeignFileError as error:
        raise CheckpointError(str(error)) from error
    checkpoint["model"] = {key: tensor.to(map_location) for key, tensor in checkpoint["model"].items()}
    return checkpoint


def class_name(cls: type) -> str:
    """Module and name of a class, for people; a checkpoint never holds the class itself."""
    return f"{cls.__module__}.{cls.__qualname__}"
