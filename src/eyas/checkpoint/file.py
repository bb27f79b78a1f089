"""Checkpoints: tensors and plain values only, written so that a crash or a full disk leaves the previous one intact."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyas.checkpoint.archive import Archive
from eyas.checkpoint.errors import SaveError, refusals_of
from eyas.checkpoint.fields import check_fields
from eyas.checkpoint.foreign import holds_network, weights_of
from eyas.checkpoint.pickled import read_pickle
from eyas.checkpoint.plain import check_plain, only_tensors, read_plain
from eyas.checkpoint.safetensors import SUFFIX, read_checkpoint, read_safetensors
from eyas.checkpoint.tensors import Tensors
from eyas.files import room, write_atomic


def serialise(checkpoint: dict[str, Any]) -> memoryview:
    """Return a checkpoint as bytes; built in memory first so that a full disk is an ``OSError``, not a torch error."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getbuffer()


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
                f"cannot write {path} ({room(path, len(data))}): {error.strerror or error}; {kept}. "
                f"Free some space and {then}."
            ) from error


def load_checkpoint(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint, whoever made it: one of Eyas, also as safetensors, or of the incumbent
    library.

    Nothing in it is run, every number in it is held against its checksum, and time and memory are bounded by the
    size of the file.

    Returns:
        The dictionary written by ``save_checkpoint``; of a foreign file, its part that inference needs.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a checkpoint, damaged, holding code, of another task, or from a newer format.
    """
    path = existing(path)
    if path.suffix == SUFFIX:
        with refusals_of(path):
            checkpoint = read_checkpoint(path)
            check_fields(checkpoint)
        return checkpoint | {"model": {key: tensor.to(map_location) for key, tensor in checkpoint["model"].items()}}
    with refusals_of(path), Archive(path) as archive:
        content = read_pickle(archive.description())
        if holds_network(content):
            checkpoint = weights_of(content, archive)
            checkpoint["model"] = {key: tensor.to(map_location) for key, tensor in checkpoint["model"].items()}
        else:
            checkpoint = read_plain(content, Tensors(archive, map_location))
            check_fields(checkpoint)
    return checkpoint


def read_tensors(path: str | Path) -> dict[str, Any]:
    """Read the tensors of a file of weights, whoever wrote it, in the dictionaries that they are in; all else is left
    out. It is one of ``torch.save``, or of safetensors if it is called so, or a TorchScript program, as OpenAI's CLIP.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: it is no such file, damaged, or holds code.
    """
    path = existing(path)
    if path.suffix == SUFFIX:
        return dict(read_safetensors(path)[0])
    with refusals_of(path), Archive(path, programs=True) as archive:
        content = read_pickle(archive.description())
        tensors = read_plain(only_tensors(content), Tensors(archive))
        return dict(joined_names(tensors)) if archive.is_program else tensors


def joined_names(tensors: Mapping[str, Any], lead: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield tensors in nested dictionaries with the keys that lead to them, joined by points, as a state dict has."""
    for key, value in tensors.items():
        if isinstance(value, Tensor):
            yield lead + key, value
        else:
            yield from joined_names(value, f"{lead}{key}.")


def existing(path: str | Path) -> Path:
    """Return the path of a file that is there.

    Raises:
        FileNotFoundError: it is not.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}.")
    return Path(path)


def class_name(cls: type) -> str:
    """Module and name of a class, for people; a checkpoint never holds the class itself."""
    return f"{cls.__module__}.{cls.__qualname__}"
