"""What went wrong with one sample."""

from __future__ import annotations


class LoaderGoneError(ChildProcessError):
    """A process that loads images has ended, and not by itself; the message says which, and how."""


class SampleError(ValueError):
    """One sample could not be made. The message names the image; `detail` holds the traceback of the cause."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail

    def __reduce__(self) -> tuple[type[SampleError], tuple[str, str]]:
        return SampleError, (str(self), self.detail)


class UnloadableImage(SampleError):
    """An image of the index cannot be loaded; `index` is its number there."""

    def __init__(self, message: str, detail: str = "", index: int = -1) -> None:
        super().__init__(message, detail)
        self.index = index


class ChangedFile(ValueError):
    """A file is another one than when it was indexed: what was read of the data set no longer holds."""
