"""Search for options: many trainings, each chosen by what came of those before.

``eyas tune`` is `eyas.tune.search`; `eyas.tune.ray` starts trainings and searches on a cluster. Optuna and Ray are
imported where they are used, for neither comes with Eyas; the names below, where they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyas.tune.report import Row
    from eyas.tune.space import DEFAULT, Choice, Range, Space, parse_space
    from eyas.tune.study import Found, Search, run_search, search

_HOME = {
    **dict.fromkeys(("DEFAULT", "Choice", "Range", "Space", "parse_space"), "eyas.tune.space"),
    **dict.fromkeys(("Found", "Search", "run_search", "search"), "eyas.tune.study"),
    "Row": "eyas.tune.report",
}

__all__ = ["DEFAULT", "Choice", "Found", "Range", "Row", "Search", "Space", "parse_space", "run_search", "search"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'eyas.tune' has no attribute {name!r}; it has: {', '.join(sorted(_HOME))}")
    return getattr(import_module(_HOME[name]), name)
