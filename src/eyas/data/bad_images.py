"""Images that an index has and that could not be loaded when they were needed: counted, told, and few, or the run ends.

Training takes the next image of the order in the place of such a one, validation leaves it out; see `TrainDataset` and
`EvalDataset`. An image counts once, however often it was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from eyas import dist
from eyas.data.errors import SampleError
from eyas.data.report import lost_kind
from eyas.log import warn

SHARE = 0.01  # of the images of a split
KIND = lost_kind("image that could not be loaded")
_TOLD = 5  # images of a message


class TooManyBadImages(SampleError):
    """More images than the run may do without could not be loaded."""


class BadImages:
    """The bad images of one split.

    Args:
        images: of the split.
        share: of them that may be bad; from the first on, if it is above 0: one never ends a run.
        done: what is done about one, for messages.

    Attributes:
        found: {path: why it could not be loaded}; of all processes once they are joined.
    """

    def __init__(self, images: int, *, share: float, done: str) -> None:
        self.images, self.share, self.done = images, share, done
        self.found: dict[str, str] = {}
        self._told: set[str] = set()
        self._joined: set[str] = set()

    @property
    def allowed(self) -> int:
        """How many may be bad."""
        return max(int(self.share * self.images), 1) if self.share else 0

    def add(self, found: Mapping[str, str]) -> None:
        """Count images that were found bad.

        Raises:
            TooManyBadImages: they are too many by now; names the first ones.
        """
        self.found |= found
        if len(self.found) > self.allowed:
            raise TooManyBadImages(
                f"{len(self.found):,} of {self.images:,} images could not be loaded, and bad_images={self.share:g} "
                f"allows {self.allowed:,}: {_listed(self.found)}. Mend or remove them, or allow more with bad_images=."
            )

    def join(self) -> dict[str, str]:
        """Count what all processes have found; every process must come here. Returns what no earlier call has.

        Raises:
            TooManyBadImages: in all of them.
        """
        everyone = dist.gather_all(self.found)
        self.add({path: why for found in everyone for path, why in sorted(found.items())})
        self.tell()
        new = {path: why for path, why in self.found.items() if path not in self._joined}
        self._joined |= new.keys()
        return new

    def take_over(self, found: Mapping[str, str]) -> None:
        """Go on counting from what an earlier part of the run has found, and told."""
        self.found |= found
        self._told |= found.keys()

    def tell(self) -> None:
        """Warn of those that were not told yet; the main process alone does."""
        new = {path: why for path, why in self.found.items() if path not in self._told}
        self._told |= new.keys()
        if new and dist.is_main():
            number = "an image" if len(new) == 1 else f"{len(new):,} images"
            warn(f"{number} could not be loaded; {self.done}: {_listed(new)}")


def _listed(found: Mapping[str, str]) -> str:
    first = sorted(found.items())[:_TOLD]
    shown = "; ".join((why if path in why else f"{path}: {why}").rstrip(".") for path, why in first)
    return shown + (f"; and {len(found) - _TOLD:,} more" if len(found) > _TOLD else "")
