"""``eyas doctor data.yaml``: what is wrong with a data set, told before hours are spent on it.

``examine`` opens the data set as a training would, asks every check of ``checks.registry`` and returns a ``Diagnosis``.
A check is a small function that looks at a ``Case`` and gives ``Finding``s; ``render`` makes a table, JSON or a page of
them. Nothing of the data set is changed.
"""

from __future__ import annotations

from eyas.doctor.examine import Diagnosis, examine
from eyas.doctor.finding import Finding, Place

__all__ = ["Diagnosis", "Finding", "Place", "examine"]
