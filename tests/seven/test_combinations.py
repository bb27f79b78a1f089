"""All 21 pairs of the seven needs, and all seven: {one process, two} x {straight, resumed} end in the same weights."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


def load_matrix() -> ModuleType:
    spec = importlib.util.spec_from_file_location("seven_matrix", Path(__file__).with_name("matrix.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


matrix = load_matrix()


@pytest.fixture(scope="module")
def common(digits_tiny: Path, tiny_model: Path) -> dict[str, str]:
    return {"data": str(digits_tiny), "model": str(tiny_model)}


@pytest.fixture(scope="module")
def two_processes(common: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the runs of all combinations by two processes; one launch, since torch takes seconds to import."""
    out = tmp_path_factory.mktemp("two")
    options = out / "options.json"
    options.write_text(json.dumps(common))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, str(Path(__file__).with_name("matrix.py")), str(out), str(options)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return out


def assert_equal(one: dict[str, Any], other: dict[str, Any], tolerance: float = 0.0) -> None:
    for part in ("model", "average"):
        assert one[part].keys() == other[part].keys()
        for key, value in one[part].items():
            allowed = tolerance * value.double().abs().clamp(min=1)  # variances of random networks reach hundreds
            assert ((value.double() - other[part][key].double()).abs() <= allowed).all(), f"{part} {key}"
    assert one["best_files"] == other["best_files"]
    for row, twin in zip(one["rows"], other["rows"], strict=True):
        assert row == (twin if tolerance == 0 else pytest.approx(twin, rel=1e-4, abs=1e-5))


@pytest.mark.parametrize("needs", matrix.COMBINATIONS, ids=matrix.title)
def test_one_process_or_two_straight_or_resumed(
    needs: tuple[str, ...], common: dict[str, str], two_processes: Path, tmp_path: Path
) -> None:
    options = {**common, **matrix.settings(needs)}
    straight = matrix.essence(matrix.train(tmp_path / "straight", **options))
    resumed = matrix.essence(matrix.train_in_two_parts(tmp_path / "resumed", **options))
    pair = torch.load(two_processes / f"{matrix.title(needs)}.pt", weights_only=True)
    assert_equal(straight, resumed)
    assert_equal(pair["straight"], pair["resumed"])
    assert_equal(straight, pair["straight"], tolerance=1e-6)
    for folder in (tmp_path, two_processes / matrix.title(needs)):
        for run in ("straight", "resumed"):
            effects = json.loads((folder / run / "effects.json").read_text())
            seen = {name for name, entry in effects["settings"].items() if entry["seen"] not in (None, {}, [])}
            assert seen >= set(matrix.settings(needs)), "a setting left no witness"
