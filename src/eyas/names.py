"""What a mistyped name was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

CUTOFF = 0.6  # of ``difflib``: 1 is the same word, 0 any other


def nearest(name: object, known: Iterable[str], n: int = 1, cutoff: float = CUTOFF) -> list[str]:
    """Return at most ``n`` known names that resemble ``name``, best first; capitals count."""
    return get_close_matches(str(name), list(known), n=n, cutoff=cutoff)


def did_you_mean(name: object, known: Iterable[str], n: int = 1, cutoff: float = CUTOFF) -> str:
    """Return `` Did you mean 'x'?`` to hang at the end of a sentence, empty if nothing known resembles ``name``."""
    near = nearest(name, known, n, cutoff)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
