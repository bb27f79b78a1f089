"""What a network's weights descend from: who published it, under which licence, trained on what.

The chain goes from checkpoint to checkpoint, oldest first. It is as complete as what is known: weights that come as
bare tensors say nothing of themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

ENTRY = "ancestors"  # of a checkpoint
UNKNOWN = "not known"


@dataclass(frozen=True)
class Ancestor:
    """One link of the chain; "" for what is not known.

    Attributes:
        name: what it is.
        licence: its name.
        source: who published it.
        trained_on: data.
        sha256: of the file.
        consent: how its licence was agreed to, where that was needed.
    """

    name: str
    licence: str = ""
    source: str = ""
    trained_on: str = ""
    sha256: str = ""
    consent: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return what is known as plain texts."""
        return {name: text for name, text in asdict(self).items() if text}

    def __str__(self) -> str:
        parts = [self.name, f"licence {self.licence or UNKNOWN}", self.source]
        parts += [f"trained on {self.trained_on}"] if self.trained_on else []
        parts += [f"sha256 {self.sha256[:16]}"] if self.sha256 else []
        return ", ".join(part for part in [*parts, self.consent] if part)


Ancestors = tuple[Ancestor, ...]
KNOWN = tuple(field.name for field in fields(Ancestor))


def read_ancestors(checkpoint: Mapping[str, Any]) -> Ancestors:
    """Return the chain that a checkpoint holds; entries of later versions that are not known here are left out."""
    rows: Sequence[Mapping[str, str]] = checkpoint.get(ENTRY, ())
    return tuple(Ancestor(**{k: v for k, v in ({"name": UNKNOWN} | dict(row)).items() if k in KNOWN}) for row in rows)


def own_chain(checkpoint: Mapping[str, Any]) -> Ancestors:
    """Return the chain of a checkpoint that is opened as it is; a file of others stays a link when written anew."""
    return descent(checkpoint) if checkpoint["eyas"].get("read_from") else read_ancestors(checkpoint)


def described(ancestors: Ancestors) -> dict[str, list[dict[str, str]]]:
    """Return the entry of a checkpoint, none for weights that descend from nothing known."""
    return {ENTRY: [ancestor.to_dict() for ancestor in ancestors]} if ancestors else {}


def joined(*chains: Ancestors) -> Ancestors:
    """Return several chains as one, each link once."""
    return tuple(dict.fromkeys(link for chain in chains for link in chain))


def descent(weights: object) -> Ancestors:
    """Return the chain of weights to start from: that of a checkpoint, and the checkpoint itself as its last link."""
    if not isinstance(weights, Mapping):
        return ()
    about, trained = weights.get("eyas"), weights.get("train_args")
    if not isinstance(about, Mapping) or not isinstance(trained, Mapping):
        return read_ancestors(weights)  # not a checkpoint of a training
    table = weights.get("yaml")
    file = str(table.get("yaml_file", "")) if isinstance(table, Mapping) else ""
    maker = about.get("read_from") or f"Eyas {about.get('version', '')}".strip()
    data = trained.get("data")
    own = Ancestor(
        name=file.removesuffix(".yaml") or "a model without a name",
        source=f"trained by {maker}",
        licence=str(weights.get("licence", "")),
        trained_on=data if isinstance(data, str) else "",
    )
    return joined(read_ancestors(weights), (own,))
