"""Trainings of the eight needs, by two, by four and all together, straight and resumed; by one process or by two.

As a program, under torch's launcher: ``python -m torch.distributed.run --nproc-per-node=2 matrix.py OUT OPTIONS.json``,
where the options are those of each family: ``{"yolo26": {"model": ..., "data": ...}, "rtdetr": {...}}``.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from eyas import dist
from eyas.callbacks import Callback
from eyas.checkpoint import load_checkpoint, save_checkpoint
from eyas.families import families
from eyas.train import DetectionTrainer

# SGD, because Adam divides by the size of a gradient and so turns rounding of 1e-8 into steps of the rate; and a small
# rate, because gradients of a network with random weights differ by 1e-4 of their size between two orders of addition
# (channels last or not, in one process, does the same), which larger steps would let grow.
BASE = {
    "imgsz": 64,
    "fraction": 0.25,
    "batch": 8,
    "epochs": 2,
    "nbs": 8,
    "workers": 0,
    "optimizer": "SGD",
    "lr0": 1e-4,
    "device": "cpu",
    "plots": False,
    "verbose": False,
}
TRAINERS: dict[str, type[DetectionTrainer]] = {name: family.trainer for name, family in families().items()}
TRAINERS |= dict.fromkeys(("deimv2", "ecdet"), TRAINERS["deim"])  # networks of DEIM's with layers of their own
NEEDS: dict[str, dict[str, Any]] = {
    "metrics": {"metrics": ["f1", "recall_at_p50"]},
    "class_weights": {"class_weights": {"1": 3.0, "7": 0.5}},
    "best_by": {"best_by": ["metrics/mAP50(B)", {"metric": "val/cls_loss", "mode": "min"}]},
    "freeze": {"freeze": "backbone", "freeze_epochs": 1},
    "rates": {"lr_rules": {"backbone": 0.1, "head.cls": 3.0}, "layer_decay": 0.9},
    "sync_bn": {"sync_bn": True},
    "clip": {"clip_grad_norm": 0.1},
    "ignore": {"ignore": ["3"]},
}
PAIRS = [*itertools.combinations(NEEDS, 2)]
# Needs go in four couples, and two couples always train together: every pair of needs is in one of six trainings.
COUPLES = [tuple(NEEDS)[i : i + 2] for i in range(0, len(NEEDS), 2)]
FOURS = [one + other for one, other in itertools.combinations(COUPLES, 2)]
ALL = tuple(NEEDS)
# By one process: all pairs of YOLO26, and of RT-DETR the fours that hold them.
ALONE = [("yolo26", pair) for pair in PAIRS] + [("rtdetr", four) for four in FOURS]
# By two processes too; every pair of needs is in a four, and one family is enough for those: the loop is the same.
TOGETHER = [(f, needs) for f in TRAINERS for needs in ([*FOURS, ALL] if f == "yolo26" else [ALL])]


def title(needs: tuple[str, ...]) -> str:
    return "all" if len(needs) == len(NEEDS) else "+".join(needs)


def settings(needs: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for need in needs for key, value in NEEDS[need].items()}


class KeepTheMiddle(Callback):
    """Saves what Ctrl-C would, inside the second of two epochs: after the end of a freeze of one epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Any) -> None:
        if (trainer.epoch, trainer.step) == (1, 0):
            trainer.meter.reduce()
            if dist.is_main():
                shutil.copytree(trainer.wdir, self.path.parent)
                save_checkpoint(trainer.checkpoint(finished_epoch=False), self.path)


def train(folder: Path, family: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return last.pt of a run that was left alone, and of one that was resumed from the middle of it."""
    trainer = TRAINERS[family]
    middle = folder / "resumed" / "weights" / "last.pt"
    overrides = {**BASE, "save_dir": str(folder / "straight"), **options}
    trainer(overrides=overrides, _callbacks=[KeepTheMiddle(middle)]).train()
    trainer(overrides={"resume": str(middle)}).train()
    return load_checkpoint(folder / "straight" / "weights" / "last.pt"), load_checkpoint(middle)


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
    for family, needs in TOGETHER:
        folder = out / family / title(needs)
        straight, resumed = train(folder, family, **common[family], **settings(needs))
        if dist.is_main():
            torch.save({"straight": essence(straight), "resumed": essence(resumed)}, folder / "ends.pt")
    dist.finish()


if __name__ == "__main__":
    main()
