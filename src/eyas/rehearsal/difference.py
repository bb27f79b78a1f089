"""Why two runs that should be the same are not: which value of the user's own was another when the epoch began."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eyas.rehearsal.report import Place

Value = tuple[str, Place | None]  # the value as a text, and the line that changes it

NOT_SAVED = (
    "It is not in the checkpoint. Let a callback keep it and return it from state_dict(), or compute it from "
    "trainer.epoch and trainer.step."
)
NOT_SEEDED = "Draw from a generator seeded with trainer.args.seed and trainer.epoch, or from torch's own."


@dataclass(frozen=True)
class Snapshot:
    """A run at the start of its second epoch.

    Attributes:
        weights: hash of the live weights.
        values: what the user's own classes and globals hold, by a name that people understand.
        drawn: modules whose global random numbers were drawn from during the first epoch, and by which line.
    """

    weights: str
    values: dict[str, Value] = field(default_factory=dict)
    drawn: dict[str, Place | None] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Snapshot:
        """Return what ``write`` wrote."""
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values = {name: (text, place_from(place)) for name, (text, place) in stored["values"].items()}
        return cls(stored["weights"], values, {name: place_from(place) for name, place in stored["drawn"].items()})


def place_from(values: Mapping[str, Any] | None) -> Place | None:
    """Return a place from JSON."""
    return Place(**values) if values else None


def explain(straight: Snapshot, other: Snapshot) -> tuple[str, Place | None]:
    """Return why the other run went another way, as far as it can be told, and the line behind it.

    Args:
        straight: of the run that was never interrupted.
        other: of the one that was killed, or resumed.
    """
    for name in changed(straight, other):
        (text, place), theirs = straight.values[name], other.values.get(name, ("nothing at all", None))
        return f"{name} was {text} when the second epoch began, and {theirs[0]} here. {NOT_SAVED}", place
    for module, place in straight.drawn.items():
        return f"Something draws from the global numbers of {module}, which no checkpoint holds. {NOT_SEEDED}", place
    return "No value of your classes or globals tells why; look for state in files, closures or other modules.", None


def changed(straight: Snapshot, other: Snapshot) -> list[str]:
    """Return names of the values that the other run does not hold, or holds another of."""
    return [name for name, (text, _) in straight.values.items() if other.values.get(name, ("", None))[0] != text]
