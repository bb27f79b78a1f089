"""A small share of ``chaos.py``, which a person runs for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).with_name("chaos.py")


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.usefixtures("forked")
def test_a_fault_breaks_no_promise() -> None:
    """A signal to a group; the other kinds have tests of their own beside this one."""
    command = [sys.executable, str(CHAOS), "--faults", "1", "--seed", "3343"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    header, fault = done.stdout.splitlines()
    assert header.endswith("broken promises") and fault.split()[-3:] == ["130", "0", "0"]
