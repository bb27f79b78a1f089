"""What tests of models share: weights that are written down, and numbers to agree with."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

PARITY = Path(__file__).resolve().parents[4] / "shared" / "parity"


@torch.no_grad()
def _write_weights(model: torch.nn.Module) -> None:
    for j, (key, tensor) in enumerate(sorted(model.state_dict().items())):
        if not tensor.is_floating_point():
            tensor.zero_()
            continue
        i = torch.arange(tensor.numel(), dtype=torch.float64)
        z = torch.sin(0.7 * (1 + 0.001 * (j % 97)) * i + 0.13 * j).view(tensor.shape)
        if key.endswith("running_var"):
            z = 1 + 0.2 * z.abs()
        elif tensor.ndim >= 2:
            z = z * math.sqrt(2 / (tensor.numel() / tensor.shape[0]))
        elif key.endswith("weight"):
            z = 1 + 0.1 * z
        else:
            z = 0.1 * z
        tensor.copy_(z)


@pytest.fixture(scope="session")
def write_weights() -> Callable[[torch.nn.Module], None]:
    """Fill every tensor of a model by the rule of spec core J.1."""
    return _write_weights


@pytest.fixture(scope="session")
def golden_image() -> torch.Tensor:
    """The input (1, 3, 64, 96) of spec core J.1."""
    i = torch.arange(3 * 64 * 96, dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(0.011 * i)).float().view(1, 3, 64, 96)


@pytest.fixture(scope="session")
def parity_fill() -> ModuleType:
    """The rule by which parity cases fill weights, images and targets; without it the test is skipped."""
    if not (PARITY / "fill.py").is_file():
        pytest.skip("no parity cases beside the repository")
    spec = importlib.util.spec_from_file_location("parity_fill", PARITY / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def parity_case(parity_fill: ModuleType) -> Callable[[str], dict[str, Any]]:
    """Read the arrays of a parity case by its name."""

    def read(name: str) -> dict[str, Any]:
        with np.load(PARITY / "cases" / f"{name}.npz") as case:
            return dict(case)

    return read
