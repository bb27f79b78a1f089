"""Trainings of the seven needs, two by two and all together, straight and resumed; by one process or by two.

As a program, under torch's launcher: ``python -m torch.distributed.run --nproc-per-node=2 matrix.py OUT OPTIONS.json``.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch

from eyas import dist
from eyas.callbacks import Callback
from eyas.train import DetectionTrainer
from eyas.train.checkpoint import load_checkpoint
from eyas.train.interrupt import Interrupted

# SGD, because Adam divides by the size of a gradient and so turns rounding of 1e-8 into steps of the rate.
BASE = {
    "imgsz": 64,
    "fraction": 0.25,
    "batch": 8,
    "epochs": 3,
    "nbs": 8,
    "workers": 0,
    "optimizer": "SGD",
    "lr0": 0.01,
    "device": "cpu",
    "plots": False,
    "verbose": False,
}
NEEDS: dict[str, dict[str, Any]] = {
    "metrics": {"metrics": ["f1", "recall_at_p50"]},
    "class_weights": {"class_weights": {"1": 3.0, "7": 0.5}},
    "best_by": {"best_by": ["metrics/mAP50(B)", {"metric": "val/cls_loss", "mode": "min"}]},
    "freeze": {"freeze": "backbone", "freeze_epochs": 1},
    "rates": {"lr_rules": {"backbone": 0.1, "head.cls": 3.0}, "layer_decay": 0.9},
    "sync_bn": {"sync_bn": True},
    "clip": {"clip_grad_norm": 0.1},
}
COMBINATIONS = [*itertools.combinations(NEEDS, 2), tuple(NEEDS)]
assert len(COMBINATIONS) == 22


def title(needs: tuple[str, ...]) -> str:
    return "all" if len(needs) == len(NEEDS) else "+".join(needs)


def settings(needs: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for need in needs for key, value in NEEDS[need].items()}


class Leave(Callback):
    """Presses Ctrl-C on one process, in the second epoch of three: after the switch of a freeze of one epoch."""

    def on_train_batch_end(self, trainer: Any) -> None:
        if trainer.epoch == 1 and dist.is_main():
            trainer.interrupted.raised = True


def train(folder: Path, **options: Any) -> dict[str, Any]:
    """Return last.pt of a run that was left alone."""
    DetectionTrainer(overrides={**BASE, "save_dir": str(folder), **options}).train()
    return load_checkpoint(folder / "weights" / "last.pt")


def train_in_two_parts(folder: Path, **options: Any) -> dict[str, Any]:
    """Return last.pt of a run that was interrupted and resumed."""
    try:
        DetectionTrainer(overrides={**BASE, "save_dir": str(folder), **options}, _callbacks=[Leave()]).train()
    except Interrupted:
        pass
    else:
        raise AssertionError("the run was not interrupted")
    DetectionTrainer(overrides={"resume": str(folder / "weights" / "last.pt")}).train()
    return load_checkpoint(folder / "weights" / "last.pt")


def essence(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What two equal runs have in common."""
    state = checkpoint["state"]
    rows = [{k: v for k, v in row.items() if k != "time"} for row in state["history"]]
    best = {"best_files": state["best_files"], "best_fitness": state["best_fitness"]}
    return {"model": state["model"], "average": checkpoint["model"], "rows": rows, **best}


def main() -> None:
    out, common = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    torch.set_num_threads(1)
    dist.start("cpu")
    for needs in COMBINATIONS:
        folder = out / title(needs)
        runs = {
            "straight": essence(train(folder / "straight", **common, **settings(needs))),
            "resumed": essence(train_in_two_parts(folder / "resumed", **common, **settings(needs))),
        }
        if dist.is_main():
            torch.save(runs, out / f"{title(needs)}.pt")
    dist.finish()


if __name__ == "__main__":
    main()
