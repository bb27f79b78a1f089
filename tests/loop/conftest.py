"""Tiny real trainings: 64 px, the 64 + 16 scenes of the embedded set, a network of an eighth of the width."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Options = Callable[..., dict[str, Any]]


@pytest.fixture
def options(digits_tiny: Path, tiny_model: Path, tmp_path: Path) -> Options:
    """Return options of a tiny training, with changes."""
    return options_in(tmp_path, digits_tiny, tiny_model)


@pytest.fixture(scope="module")
def shared_options(digits_tiny: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Options:
    """Return options, with changes, of a tiny training that the tests of a file share."""
    return options_in(tmp_path_factory.mktemp("shared"), digits_tiny, tiny_model)


def options_in(folder: Path, data: Path, model: Path) -> Options:
    def make(**changes: Any) -> dict[str, Any]:
        base = {
            "model": str(model),
            "data": str(data),
            "imgsz": 64,
            "epochs": 3,
            "batch": 16,
            "workers": 0,
            "plots": False,
            "report": False,
            "verbose": False,
            "device": "cpu",
            "project": str(folder / "runs"),
        }
        return base | changes

    return make
