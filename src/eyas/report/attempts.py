"""What a training can do without: it is attempted, and where it fails the run goes on."""

from __future__ import annotations

from collections.abc import Callable

from eyas.log import warn


class Attempts:
    """Calls things that may fail; the first failure is said in a line, and no other.

    Args:
        what: that does not work then, as the beginning of the line.
        patience: failures in a row after which nothing is attempted any more.

    Attributes:
        failure: the first one, in a line; empty so far.
    """

    def __init__(self, what: str, patience: int = 3) -> None:
        self.what, self.left, self.patience = what, patience, patience
        self.failure = ""

    def __call__(self, call: Callable[[], object]) -> bool:
        """Attempt a call, unless too many have failed; return whether it worked."""
        if not self.left:
            return False
        try:
            call()
        except Exception as error:  # of another's library, a network, a disk: none is worth a run
            self.note(error)
            return False
        self.left = self.patience
        return True

    def give_up(self) -> None:
        """Attempt nothing more."""
        self.left = 0

    def note(self, error: Exception) -> None:
        """Remember a failure, and say the first."""
        self.left -= 1
        if not self.failure:
            first = (str(error).strip().splitlines() or [""])[0]
            self.failure = f"{type(error).__name__}: {first}"[:300]
            warn(f"{self.what} ({self.failure}); the training goes on.")
