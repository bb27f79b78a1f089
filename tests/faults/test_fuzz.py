"""A small share of ``fuzz.py``, which a person runs for longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    helpers = os.pathsep.join([str(HERE.parent / "helpers"), *sys.path])
    command = [sys.executable, str(HERE / "fuzz.py"), *arguments]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": helpers}, capture_output=True, text=True, check=False
    )


def test_nothing_goes_wrong_in_a_few_cases_of_each_kind() -> None:
    done = fuzz("--cases", "4", "--seed", "26")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout and done.stdout.count("slowest") == 8
