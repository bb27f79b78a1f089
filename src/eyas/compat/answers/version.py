"""``ultralytics.__version__``: the release whose names are answered, and who answers."""

from __future__ import annotations

import eyas

ANSWERS = "8.4.190"
"""The incumbent's release whose names and arguments are taken as the model."""

__version__ = f"{ANSWERS}.0+eyas.{eyas.__version__}"
"""A version as PEP 440 has it. Scripts compare it with those of the incumbent to know what they may call, by text, by
the first numbers or as a version, so it begins with that release; and what writes it into a report tells, by the part
behind the plus sign, that Eyas did the work. The zero keeps the third number one."""
