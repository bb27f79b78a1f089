"""Whole trainings by several processes: the same weights as one process, and an end to everything that goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eyas.checkpoint import load_checkpoint
from eyas.train import DetectionTrainer

RECIPE = Path(__file__).parents[2] / "examples" / "scale" / "torchrun_two_nodes.sh"
COMMON = {"imgsz": 64, "workers": 0, "device": "cpu", "plots": False, "verbose": False, "optimizer": "SGD", "nbs": 8}


def train(folder: Path, **options: Any) -> dict[str, Any]:
    DetectionTrainer(overrides={**COMMON, "save_dir": str(folder), **options}).train()
    return load_checkpoint(folder / "weights" / "last.pt")


def test_twenty_steps_of_two_processes_with_synchronised_norms_are_those_of_one(
    in_ranks: Any, digits_tiny: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = {"model": str(tiny_model), "data": str(digits_tiny), "fraction": 0.5, "batch": 7, "epochs": 4}
    options |= {"lr0": 1e-5, "sync_bn": True}  # 32 images: five batches of 7, 7, 7, 7 and 4, shared as 3 + 4 and 2 + 2
    one = train(tmp_path / "one", **options)
    in_ranks(lambda: train(tmp_path / "two", **options)["epoch"])
    two = load_checkpoint(tmp_path / "two" / "weights" / "last.pt")
    assert one["state"]["plan"]["updates"] == 20
    start = train(tmp_path / "start", **{**options, "epochs": 1, "lr0": 1e-12})
    moved = off = 0.0
    for key, value in one["state"]["model"].items():
        # Statistics over 2 x 2 positions of a random network magnify rounding of the layers before them.
        allowed = (1e-4 if "running" in key else 1e-5) * value.double().abs().clamp(min=1)
        assert ((value - two["state"]["model"][key]).double().abs() <= allowed).all(), key
        if "running" not in key and value.is_floating_point():
            moved += float((value - start["state"]["model"][key]).square().sum())
            off += float((value - two["state"]["model"][key]).square().sum())
    assert moved**0.5 > 1e-4 and off**0.5 < 0.01 * moved**0.5, "the difference is small beside what was trained"
    for row, twin in zip(one["state"]["history"], two["state"]["history"], strict=True):
        assert {k: v for k, v in row.items() if k != "time"} == pytest.approx(
            {k: v for k, v in twin.items() if k != "time"}, rel=1e-2, abs=1e-5
        )


def test_more_processes_than_validation_batches(
    in_ranks: Any, digits_tiny: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = {"model": str(tiny_model), "data": str(digits_tiny), "fraction": 0.25, "batch": 8, "epochs": 1}
    one = train(tmp_path / "one", **options, lr0=0.001)  # 16 images to validate on: one batch for three processes
    rows = in_ranks(lambda: train(tmp_path / "three", **options, lr0=0.001)["state"]["history"], processes=3)
    assert rows[0] == rows[1] == rows[2]
    keys = [key for key in rows[0][0] if key.startswith(("metrics/", "val/"))]
    mine = one["state"]["history"][0]
    assert {key: rows[0][0][key] for key in keys} == pytest.approx({key: mine[key] for key in keys}, rel=1e-3, abs=1e-5)


@pytest.mark.usefixtures("forked")
def test_torchrun_on_two_nodes_trains_one_model(
    digits_tiny: Path, tiny_model: Path, tmp_path: Path, free_port: int
) -> None:
    options = {"model": tiny_model, "data": digits_tiny, "fraction": 0.25, "batch": 8, "epochs": 1, "imgsz": 64}
    options |= {"workers": 0, "device": "cpu", "plots": False}
    command = ["bash", str(RECIPE), *(f"{name}={value}" for name, value in options.items())]
    # Without an address a node announces itself by its host's name, which not every machine can look up.
    asked = {"HEAD": "localhost", "PORT": free_port, "PER_NODE": 1, "ADDRESS": "localhost", "RUN": tmp_path / "run"}
    asked |= {"PYTHON": sys.executable, "OMP_NUM_THREADS": 1, "EYAS_TEST_TOKEN": tmp_path}
    nodes = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in asked.items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [node.communicate(timeout=120)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
    assert sum("mAP50" in text for text in said) == 1, "one of them speaks"
    saved = load_checkpoint(tmp_path / "run" / "weights" / "last.pt")
    assert saved["epoch"] == 0 and saved["state"]["plan"]["updates"] == 2
    assert left_over(tmp_path) == []


SCRIPT = """
import os, signal, sys
from eyas import YOLO, Callback
from eyas.launch.launcher import WorkerError

class Breaks(Callback):
    def on_train_batch_end(self, trainer):
        if os.environ["RANK"] == "1" and trainer.step == 1:
            {what}

try:
    YOLO(sys.argv[1]).train(data=sys.argv[2], callbacks=[Breaks()], imgsz=64, fraction=0.25, epochs=2, batch=8,
                            workers=0, plots=False, verbose=False, device="cpu", processes=2)
except WorkerError as error:
    print("ENDED", error.rank, error)
"""


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("raise ZeroDivisionError('on rank one')", ["ENDED 1", "ZeroDivisionError: on rank one", "on_train_batch_end"]),
        ("os.kill(os.getpid(), signal.SIGKILL)", ["ENDED 1", "SIGKILL"]),
    ],
    ids=["raises", "killed"],
)
def test_a_process_that_fails_ends_the_run_and_leaves_nobody(
    digits_tiny: Path, tiny_model: Path, tmp_path: Path, what: str, said: list[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("{what}", what))
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(script), str(tiny_model), str(digits_tiny)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert time.monotonic() - began < 100
    for text in said:
        assert text in done.stdout, done.stdout + done.stderr[-3000:]
    assert left_over(tmp_path) == []


def left_over(folder: Path) -> list[str]:
    """Command lines of processes that work in a folder: those that the script started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue  # it ended while we looked, or is not ours to see
    return found


def test_the_search_for_processes_finds_one(tmp_path: Path) -> None:
    if not Path("/proc/self/cwd").exists():
        pytest.skip("needs /proc")
    sleeper = subprocess.Popen(["sleep", "30"], cwd=tmp_path)
    try:
        assert len(left_over(tmp_path)) == 1
    finally:
        sleeper.kill()
        sleeper.wait()
