"""The direction of imports, as written down in pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_imports_go_one_way():
    pytest.importorskip("importlinter", reason="import-linter is in the dev extra")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_has_two_commands_enough_alone():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv ")]
    assert len(commands) == 2
    train, test = commands
    assert ".venv/bin/eyas train model=yolo26n data=digits" in train
    assert test.endswith(".venv/bin/python -m pytest -q -n auto")
    assert all("-c constraints.txt" in command for command in commands)


def test_constraints_pin_every_direct_dependency():
    """Of the package, its tests and its demonstration: what other extras ask for is not installed in CI."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["demo"], *extras["dev"]]
    pinned = [line.split("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()]
    names = {re.split(r"[\[>]", name)[0].lower() for name in wanted}
    assert names == {name.lower() for name in pinned if name[:1] != "#"}
