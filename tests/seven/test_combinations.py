"""All 28 pairs of the eight needs, straight and resumed, end in the same weights, and so do one process and two.

By two processes, pairs train in fours that hold them all: a launch of each pair would take minutes.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from eyas.models import model_table


def load_matrix() -> ModuleType:
    spec = importlib.util.spec_from_file_location("seven_matrix", Path(__file__).with_name("matrix.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


matrix = load_matrix()


@pytest.fixture(scope="module")
def common(digits_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Data, and for each family or network a small member: where rows make it, three convolutions and a head."""
    backbone = [[-1, 1, "Conv", [width, 3, 2]] for width in (8, 8, 16)]
    # No denoising and one size: what is drawn for an image depends on the other images that its process has.
    decoder = ["nc", 16, 30, 2, 2, 2, 32, 0.0, "relu", -1, 0]
    heads = {"yolo26": [[2], 1, "Detect", ["nc"]], "rtdetr": [[2], 1, "RTDETRDecoder", decoder]}
    folder, options = tmp_path_factory.mktemp("model"), {}
    for family in matrix.TRAINERS:
        if family in heads:
            table = {"nc": 10, "end2end": True, "reg_max": 1, "backbone": backbone, "head": [heads[family]]}
        else:
            table = model_table(f"{family}-tiny") | {"nc": 10, "queries": 30, "num_denoising": 0}
        (folder / f"{family}.yaml").write_text(yaml.safe_dump(table))
        options[family] = {"data": str(digits_tiny), "model": str(folder / f"{family}.yaml"), "multi_scale": 0.0}
    for family in ("deim", "deimv2", "ecdet"):
        options[family]["close_mosaic"] = 1  # a second stage, which begins from the only epoch of the first
    return options


@pytest.fixture(scope="module")
def two_processes(common: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.fixture(scope="module")
def start(
    common: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, torch.Tensor]]:
    """Weights that every run of a family begins with."""
    return {
        family: matrix.train(tmp_path_factory.mktemp("start"), family, **options, lr0=1e-12)[0]["state"]["model"]
        for family, options in common.items()
    }


def assert_identical(one: dict[str, Any], other: dict[str, Any]) -> None:
    for part in ("model", "average"):
        assert one[part].keys() == other[part].keys()
        assert [key for key, value in one[part].items() if not torch.equal(value, other[part][key])] == []
    assert one["best_files"] == other["best_files"] and str(one["rows"]) == str(other["rows"])  # as text: nan is nan


def assert_close(one: dict[str, Any], other: dict[str, Any], start: dict[str, torch.Tensor]) -> None:
    """Weights to 1e-6, and their difference small beside what was trained."""
    for key, value in one["model"].items():
        # Statistics over 2 x 2 positions of a random network magnify rounding of the layers before them.
        allowed = (1e-4 if "running" in key else 1e-6) * value.double().abs().clamp(min=1)
        assert ((value - other["model"][key]).double().abs() <= allowed).all(), key
    parameters = [key for key in start if "running" not in key and start[key].is_floating_point()]
    far = {key: (one["model"][key] - start[key]).norm() for key in parameters}
    off = {key: (one["model"][key] - other["model"][key]).norm() for key in parameters}
    trained, difference = (float(torch.stack(list(d.values())).norm()) for d in (far, off))
    assert trained > 1e-5 and difference < 0.02 * trained
    assert one["best_files"].keys() == other["best_files"].keys()
    for row, twin in zip(one["rows"], other["rows"], strict=True):
        assert row == pytest.approx(twin, rel=1e-2, abs=1e-4, nan_ok=True)


def train(folder: Path, family: str, needs: tuple[str, ...], common: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a run of one process and a resumed one end in, which must be the same."""
    options = {**common[family], **matrix.settings(needs)}
    straight, resumed = map(matrix.essence, matrix.train(folder, family, **options))
    assert_identical(straight, resumed)
    assert_witnesses(folder, needs)
    return straight


def assert_witnesses(folder: Path, needs: tuple[str, ...]) -> None:
    for run in ("straight", "resumed"):
        effects = json.loads((folder / run / "effects.json").read_text())
        seen = {name for name, entry in effects["settings"].items() if entry["seen"] not in (None, {}, [])}
        assert seen >= set(matrix.settings(needs)), "a setting left no witness"


def test_every_pair_of_needs_trains_by_two_processes_as_well() -> None:
    together = {pair for four in matrix.FOURS for pair in itertools.combinations(sorted(four), 2)}
    assert together == {tuple(sorted(pair)) for pair in matrix.PAIRS}
    assert (len(matrix.NEEDS), len(matrix.PAIRS), len(matrix.FOURS)) == (8, 28, 6)


@pytest.mark.parametrize(
    ("family", "needs"), matrix.ALONE, ids=lambda part: part if isinstance(part, str) else matrix.title(part)
)
def test_straight_or_resumed(
    family: str, needs: tuple[str, ...], common: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    train(tmp_path, family, needs, common)


@pytest.mark.parametrize(
    ("family", "needs"), matrix.TOGETHER, ids=lambda part: part if isinstance(part, str) else matrix.title(part)
)
def test_one_process_or_two_straight_or_resumed(
    family: str,
    needs: tuple[str, ...],
    common: dict[str, dict[str, Any]],
    start: dict[str, dict[str, torch.Tensor]],
    two_processes: Path,
    tmp_path: Path,
) -> None:
    straight = train(tmp_path, family, needs, common)
    theirs = two_processes / family / matrix.title(needs)
    pair = torch.load(theirs / "ends.pt", weights_only=True)
    assert_identical(pair["straight"], pair["resumed"])
    assert_close(straight, pair["straight"], start[family])
    assert_witnesses(theirs, needs)
