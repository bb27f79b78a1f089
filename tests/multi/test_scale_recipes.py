"""The recipes of examples/scale: files that programs can read, with options that exist; SLURM's signals and queue.

torchrun's recipe is really run by two nodes in test_training_ranks.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import eyas
from eyas.checkpoint import load_checkpoint
from eyas.config import resolve

FOLDER = Path(__file__).parents[2] / "examples" / "scale"
RECIPES = sorted(FOLDER.iterdir())
SOURCE = Path(eyas.__file__).parents[1]
OPTION = re.compile(r"(?<![\w$\"{-])([a-z_0-9]+)=(\"[^\"]*\"|\S+)")


def scripts_of(recipe: Path) -> list[str]:
    """The shell code of a recipe."""
    if recipe.suffix in (".sh", ".sbatch"):
        return [recipe.read_text(encoding="utf-8")]
    documents = list(yaml.safe_load_all(recipe.read_text(encoding="utf-8")))
    if recipe.name == "skypilot.yaml":
        return [documents[0]["setup"], documents[0]["run"]]
    return [documents[1]["spec"]["trainer"]["command"][2]]


def test_every_recipe_is_here() -> None:
    names = {recipe.name for recipe in RECIPES if recipe.is_file()}
    assert names == {
        "kubeflow_trainjob.yaml", "ray_cluster.py", "skypilot.yaml", "slurm_requeue.sbatch", "torchrun_two_nodes.sh",
    }  # fmt: skip
    page = (FOLDER.parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")
    assert [name for name in names if f"examples/scale/{name}" not in page] == []


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.suffix != ".py" and r.is_file()], ids=lambda r: r.name)
def test_a_shell_reads_it_and_every_option_exists(recipe: Path) -> None:
    for script in scripts_of(recipe):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    lines = [line for script in scripts_of(recipe) for line in script.splitlines()]
    # What is handed to `eyas train`: behind `set --`, or in the comment that says how to start it.
    told = [line for line in lines if re.search(r"\bset -- |\.(sh|sbatch) .*model=", line)]
    pairs = [dict(OPTION.findall(line.partition("set -- ")[2] or line.partition(recipe.name)[2])) for line in told]
    together = {name: value for found in pairs for name, value in found.items()}
    assert together["resume"] == "auto" and "save_dir" in together, "goes on where there is something to go on from"
    for found in pairs:
        resolve(cli={name: value.strip('"') for name, value in found.items()})
    assert any("model" in found for found in pairs)


def test_the_files_of_kubernetes_and_skypilot_say_what_these_ask_for() -> None:
    runtime, job = yaml.safe_load_all((FOLDER / "kubeflow_trainjob.yaml").read_text(encoding="utf-8"))
    assert (runtime["kind"], job["kind"]) == ("TrainingRuntime", "TrainJob")
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    task = yaml.safe_load((FOLDER / "skypilot.yaml").read_text(encoding="utf-8"))
    assert task["envs"]["RUN"].startswith(tuple(task["file_mounts"])) and task["num_nodes"] == 2


SRUN = """#!/usr/bin/env bash
# What srun does to one task: a place among all, and SIGUSR1 to the task alone before the limit.
while [[ $1 == --* ]]; do shift; done
export SLURM_PROCID=0 SLURM_LOCALID=0
echo "${@: -1}" >> "$CALLS"
[ -f "$RUN/second" ] && exit 0
"$@" & task=$!
while [ ! -s "$RUN/results.csv" ] && kill -0 $task; do sleep 0.1; done
kill -USR1 $task
wait $task
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then echo localhost; else echo "$@" >> "$CALLS"; fi
"""


def test_slurm_saves_before_the_limit_and_queues_again(tmp_path: Path, digits_tiny: Path, tiny_model: Path) -> None:
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    run, calls = tmp_path / "run", tmp_path / "calls"
    job = {"SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "here", "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1"}
    own = {"RUN": run, "CALLS": calls, "PYTHON": sys.executable, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    environment = os.environ | job | {key: str(value) for key, value in own.items()}
    environment["PATH"] = f"{tmp_path}{os.pathsep}{environment['PATH']}"
    options: dict[str, Any] = {"model": tiny_model, "data": digits_tiny, "imgsz": 64, "fraction": 0.25, "batch": 8}
    options |= {"epochs": 500, "workers": 0, "device": "cpu", "plots": False, "verbose": False}
    command = ["bash", str(FOLDER / "slurm_requeue.sbatch"), *(f"{name}={value}" for name, value in options.items())]

    first = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert first.returncode == 0, first.stderr
    assert calls.read_text().splitlines()[-1] == "requeue 17"
    saved = load_checkpoint(run / "weights" / "last.pt")
    assert "state" in saved and "all saved" in first.stderr

    (run / "second").touch()  # from here on the training is at its end
    second = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (second.returncode, second.stderr) == (0, "")
    assert calls.read_text().splitlines()[2:] == ["verbose=False"], "the same command goes on, and ends"
