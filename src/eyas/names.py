"""Names in messages: what a mistyped one was probably meant to be, and a few of many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

CUTOFF = 0.6  # of ``difflib``: 1 is the same word, 0 any other
FEW = 3  # names that a message needs


def nearest(name: object, known: Iterable[str], n: int = 1, cutoff: float = CUTOFF) -> list[str]:
    """Return at most ``n`` known names that resemble ``name``, best first; capitals count."""
    return get_close_matches(str(name), list(known), n=n, cutoff=cutoff)


def did_you_mean(name: object, known: Iterable[str], n: int = 1, cutoff: float = CUTOFF) -> str:
    """Return `` Did you mean 'x'?`` to hang at the end of a sentence, empty if nothing known resembles ``name``."""
    near = nearest(name, known, n, cutoff)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def a_few(names: Sequence[str], most: int = FEW) -> str:
    """Return some names as a text: ``a, b, c and 12 more``."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")
