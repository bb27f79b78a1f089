"""What a check says: findings, and the places in the data set that they are about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The worst first. An error costs training data or makes a measured result untrue, whatever was meant; a warning is
most often a mistake, and may be meant; a note is a property of the data that people should know of."""

MAX_PLACES = 1000  # kept of a finding: one systematic fault in a million images must not fill the memory


class Seen(NamedTuple):
    """An object that a model found: x1 y1 x2 y2 in px of the image, class id of the data set, score in [0, 1]."""

    box: tuple[float, float, float, float]
    cls: int
    score: float


@dataclass(frozen=True)
class Place:
    """Where something was found.

    Attributes:
        split: "train", "val" or "test".
        file: image or label file.
        image: its number in the index of the split; None for a file that is not in it.
        line: 1-based line of a label file; 0 where there is none to name.
        labels: the objects of the image that it is about, by number among its labels, from 0.
        what: a few words on this place alone.
        beside: another image that it must be compared with.
        seen: what a model found there.
    """

    split: str
    file: str
    image: int | None = None
    line: int = 0
    labels: tuple[int, ...] = ()
    what: str = ""
    beside: Place | None = None
    seen: tuple[Seen, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, at one place or at many.

    Attributes:
        check: name of the check that found it.
        kind: a few words, the same for the same fault in every data set.
        severity: see `SEVERITIES`.
        sentence: what is the matter, with numbers.
        action: what to do about it.
        places: up to `MAX_PLACES` of them, those to look at first in front.
        count: how many places there are.
    """

    check: str
    kind: str
    severity: Severity
    sentence: str
    action: str
    places: tuple[Place, ...]
    count: int


def finding(
    check: str, kind: str, severity: Severity, sentence: str, action: str, places: Iterable[Place] = (), count: int = 0
) -> Finding:
    """Return a finding that keeps at most `MAX_PLACES` places.

    With ``count``, their number, no more of them are made than are kept.
    """
    known = tuple(islice(places, MAX_PLACES) if count else places)
    return Finding(check, kind, severity, sentence, action, known[:MAX_PLACES], count or len(known))


def counted(count: int, one: str, many: str = "") -> str:
    """Return "1 box" or "1,234 boxes"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def percent(part: float, whole: float) -> str:
    """Return a share as "12 %", "0.3 %" or "less than 0.1 %"."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "less than 0.1 %"
    return f"{share:.0f} %" if share >= 10 or share == 0 else f"{share:.1f} %"
