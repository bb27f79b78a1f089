"""What is wrong with a checkpoint, for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or is not what was asked for. Nothing in it was run."""


class CodeInFileError(CheckpointError):
    """A file asks for something to be called."""


class SaveError(OSError):
    """A checkpoint could not be written; the previous file is untouched."""


@contextmanager
def refusals_of(path: str | Path, *kinds: type[Exception]) -> Iterator[None]:
    """Say of which file a refusal speaks that says "it"; errors of other ``kinds`` are refusals here too.

    Raises:
        CheckpointError: where the block raised one, or an error of the kinds.
    """
    refusals: tuple[type[Exception], ...] = (CheckpointError, *kinds)
    try:
        yield
    except CodeInFileError as error:
        raise CheckpointError(f"{path} holds code, not just tensors, and was not opened: {error}.") from error
    except refusals as error:
        if str(error).startswith(f"{path} "):
            raise
        raise CheckpointError(f"{path} was not opened: {str(error).removesuffix('.')}.") from error
