"""What came of one stage, how it travels between processes, and how it looks."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eyas.files import write_atomic
from eyas.log import console, line_width

STYLES = {"ok": "green", "FAILED": "bold red", "skipped": "yellow"}
NAME_WIDTH, INDENT = 18, " " * 6


@dataclass(frozen=True)
class Place:
    """A line of the user's own code.

    Attributes:
        file: absolute path.
        line: from 1.
        code: the line without its indentation.
    """

    file: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{shown_path(self.file)}:{self.line}: {self.code}"


@dataclass(frozen=True)
class Outcome:
    """What came of a stage.

    Attributes:
        stage: its name.
        status: ``"ok"``, ``"FAILED"`` or ``"skipped"``.
        detail: what was seen, or why it was skipped.
        message: what went wrong.
        place: the line that broke, if one of the user's did.
        seconds: how long it took.
    """

    stage: str
    status: str
    detail: str = ""
    message: str = ""
    place: Place | None = None
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether something is wrong."""
        return self.status == "FAILED"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """Return the outcome that ``asdict`` described."""
        place = values["place"]
        return cls(**{**values, "place": Place(**place) if place else None})


def write_outcomes(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write outcomes where the parent process looks for them; whole or not at all, for it may be killed."""
    write_atomic(path, json.dumps([asdict(outcome) for outcome in outcomes]).encode())


def read_outcomes(path: Path) -> list[Outcome]:
    """Return the outcomes in a file, none if it was never written."""
    if not path.exists():
        return []
    return [Outcome.from_dict(values) for values in json.loads(path.read_text(encoding="utf-8"))]


def shown_path(file: str) -> str:
    """Return a path as a person would type it here."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


# -- on the screen -----------------------------------------------------------------------------------------------------
def print_heading(script: Path, title: str = "Rehearsal") -> None:
    """Print the title and the header of the table."""
    show(f"{title} of {shown_path(str(script))}")
    show(f"  {'stage':<{NAME_WIDTH}}  {'result':<7}  {'time':>6}  what was seen", style="dim")


def print_outcome(outcome: Outcome) -> None:
    """Print one row, and below it the line that broke and why."""
    style, width = STYLES[outcome.status], line_width(console())
    row = f"  {outcome.stage:<{NAME_WIDTH}}  {outcome.status:<7}  {outcome.seconds:>4.1f} s  {outcome.detail}"
    show(broken(row.rstrip(), width) if width else row.rstrip(), style=style)
    if outcome.place is not None:
        show(f"{INDENT}{outcome.place}", style="bold")
    for line in outcome.message.splitlines():
        show(broken(INDENT + line, min(width or 110, 110)))


def broken(line: str, width: int) -> str:
    """Break a line at blanks; what goes below is indented."""
    return textwrap.fill(line, width, subsequent_indent=INDENT, break_long_words=False)


def print_verdict(outcomes: list[Outcome], seconds: float) -> None:
    """Print the sum of it."""
    failed = [outcome.stage for outcome in outcomes if outcome.failed]
    left = [outcome.stage for outcome in outcomes if outcome.status == "skipped"]
    if not failed and not left:
        show(f"All {len(outcomes)} stages are green, in {seconds:.0f} s.", style="green")
        return
    rest = f"; not tried: {', '.join(left)}" if left else ""
    show(f"Failed: {', '.join(failed) or 'none'}{rest}. It took {seconds:.0f} s.", style="bold red")


def show(text: str, style: str | None = None) -> None:
    """Print a line as it is."""
    console().print(text, style=style, markup=False, soft_wrap=True)
