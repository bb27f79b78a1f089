"""The targets that have a name. Another needs none: its object is passed instead."""

from __future__ import annotations

from eyas.export.base import ExportTarget
from eyas.export.pt2 import ExportedProgram
from eyas.names import did_you_mean

STOCK: tuple[ExportTarget, ...] = (ExportedProgram(),)


def find_target(target: str | ExportTarget) -> ExportTarget:
    """Return the stock target of a name, or a target itself.

    Raises:
        ValueError: no stock target has the name.
    """
    if not isinstance(target, str):
        return target
    known = {stock.name: stock for stock in STOCK}
    if target not in known:
        raise ValueError(f"target={target!r} is not one of {', '.join(known)}.{did_you_mean(target, known)}")
    return known[target]
