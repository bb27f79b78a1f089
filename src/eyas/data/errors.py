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
