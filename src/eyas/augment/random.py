"""Random numbers that depend on what they are for, never on who draws them or how many were drawn before.

Philox is a counter-based generator: any (key, counter) is a stream of its own, so no state has to travel between
processes or survive a restart. The key is (seed, epoch); the counter holds (position, purpose).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

_MASK = 2**64 - 1


class Purpose(IntEnum):
    """What a stream of random numbers is for. Values are part of reproducibility: never renumber."""

    ORDER = 1
    SAMPLE = 2
    SIZE = 3
    TRANSFORMS = 4
    FRAME = 5
    POLICY = 6
    BLEND = 7


def generator(purpose: Purpose, *, seed: int, epoch: int, position: int = 0) -> np.random.Generator:
    """A fresh generator for one purpose at one place of a run.

    Args:
        purpose: separates uses from each other.
        seed: seed of the run; any integer.
        epoch: 0-based.
        position: position in the epoch's order, or the step, depending on the purpose.
    """
    # Philox counts up in the first word, so the streams of two positions cannot meet before 2**64 draws.
    # Arrays, not lists: NumPy would turn a list that mixes large and small integers into floats.
    key = np.array((seed & _MASK, epoch & _MASK), np.uint64)
    counter = np.array((0, position & _MASK, purpose, 0), np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
