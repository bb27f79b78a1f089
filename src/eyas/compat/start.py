"""What happens before a script of the incumbent's names runs."""

from __future__ import annotations

from pathlib import Path

from eyas.compat.hook import install
from eyas.compat.ultralytics import ROOT
from eyas.log import setup_logging


def begin(script: Path | None) -> None:
    """Answer the imports of a script, send Eyas' log to the console, and warn of what it will ask for in vain.

    Args:
        script: its file; None where it has none, as in a notebook.
    """
    install()
    setup_logging()
    if script is not None and ROOT in script.read_text(encoding="utf-8", errors="replace"):
        from eyas.compat.foresight import foretell  # brings torch, which a script of other names may not need

        foretell(script)
