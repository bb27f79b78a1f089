"""Bytes as people write and read them."""

from __future__ import annotations

import re


def to_bytes(text: str) -> int | None:
    """Return the bytes of a text such as 500MB or 30GB; None for what is no size."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    return None if found is None else int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " "))


def readable(size: int) -> str:
    """Bytes for people: "6.7 MB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"
