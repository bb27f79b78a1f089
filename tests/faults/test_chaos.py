"""A small share of ``chaos.py``, which a person runs for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).with_name("chaos.py")


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.usefixtures("forked")
def test_a_few_faults_break_no_promise() -> None:
    """A process killed, one of two killed, and a signal to a group."""
    command = [sys.executable, str(CHAOS), "--faults", "1", "--seed", "3343"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) >= 4
