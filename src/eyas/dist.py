"""Who am I among the processes of this run? The only reader of RANK, LOCAL_RANK and WORLD_SIZE."""

from __future__ import annotations

import os


def rank() -> int:
    """Number of this process among all, 0-based."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Number of this process on its host, 0-based."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes files and speaks to people."""
    return rank() == 0
