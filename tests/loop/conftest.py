"""Tiny real trainings: 64 px, the 64 + 16 scenes of the embedded set, a network of an eighth of the width."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def options(digits_tiny: Path, tiny_model: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return options of a tiny training, with changes."""

    def make(**changes: Any) -> dict[str, Any]:
        base = {
            "model": str(tiny_model),
            "data": str(digits_tiny),
            "imgsz": 64,
            "epochs": 3,
            "batch": 16,
            "workers": 0,
            "plots": False,
            "verbose": False,
            "device": "cpu",
            "project": str(tmp_path / "runs"),
        }
        return base | changes

    return make
