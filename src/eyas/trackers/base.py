"""The events of a run as a tracker reads them: plain values and files, no trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class Started:
    """A run begins, or goes on.

    Attributes:
        name: of its folder.
        folder: where its files lie; a tracker may write below it.
        options: every option, as plain values.
        plan: what they mean for this run, as in ``plan.json``.
        epoch: epochs that lie behind, 0 for a run that begins.
        before: what ``started`` returned when this run was started earlier; empty for a run that begins.
    """

    name: str
    folder: Path
    options: Mapping[str, object]
    plan: Mapping[str, object]
    epoch: int = 0
    before: str = ""


@dataclass(frozen=True)
class Ended:
    """A run is over.

    Attributes:
        failure: why it stopped; empty for one that came to its end.
        epoch: epochs that it trained.
        best_epoch: 1-based epoch of the best weights, 0 for none.
        metrics: numbers of the final evaluation of the best weights.
    """

    failure: str
    epoch: int
    best_epoch: int
    metrics: Mapping[str, float]


class Tracker:
    """Reads the events of one run, in the main process; override what it has a use for.

    What it raises never stops the run. Its library is imported in ``started``, and not before.

    Attributes:
        name: as the option ``loggers`` has it.
        module: that must be there; empty for none.
        extra: what installs it: ``pip install "eyas[extra]"``.
    """

    name: ClassVar[str] = ""
    module: ClassVar[str] = ""
    extra: ClassVar[str] = ""

    def __init__(self) -> None:
        if self.module and find_spec(self.module) is None:
            raise ModuleNotFoundError(
                f"the tracker {self.name} needs the package {self.extra}, which is not installed: "
                f'pip install "eyas[{self.extra}]", or leave {self.name} out of loggers.'
            )

    def started(self, run: Started) -> str:
        """Open what the run is sent to; return what names it there, for a run that goes on in another process."""
        return ""

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Take the numbers of an epoch, 1-based: those of its row in ``results.csv``, all finite."""

    def picture(self, epoch: int, path: Path) -> None:
        """Take a picture that the run has drawn, a ``.jpg`` or ``.png`` of its folder."""

    def best_model(self, path: Path) -> None:
        """Take the file of the best weights, once, at the end."""

    def ended(self, run: Ended) -> None:
        """Close what ``started`` has opened."""


def flat(values: Mapping[str, object], most: int = 250) -> dict[str, object]:
    """Return options or a plan for trackers that know numbers and short texts only: the rest as text."""
    return {
        name: value if isinstance(value, bool | int | float) else str(value)[:most]
        for name, value in values.items()
        if value is not None
    }
