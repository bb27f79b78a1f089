"""`eyas best`: numbers computed afterwards are those that the run logged, and its weights are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eyas.callbacks import MetricReport
from eyas.checkpoint import load_checkpoint
from eyas.cli import main
from eyas.evaluate import assemble
from eyas.evaluate.validator import DetectionValidator
from eyas.metrics import DetMetrics
from eyas.report.choose import Chosen, choose
from eyas.train import DetectionTrainer, TrainResult


def near_misses(metrics: DetMetrics) -> float:
    """Detections that are right at IoU 0.5 but not at 0.75, and how sure they were."""
    tp = metrics.stats["tp"]
    return float(metrics.stats["conf"][tp[:, 0] & ~tp[:, 5]].sum()) + len(metrics.stats["conf"])


class Guesses(DetectionValidator):
    """Finds the labels, a little aside and with scores that mean little: a tiny network would find nothing."""

    rounds = 0

    def start(self, network: Any, device: torch.device) -> None:
        super().start(network, device)
        self.rounds += 1

    def update(self, batch: Any, detections: Any) -> None:
        random, truth = np.random.default_rng(self.rounds), self._truth(batch)
        boxes = truth.boxes + random.normal(0, 1.5, truth.boxes.shape)
        cls = np.where(random.random(len(boxes)) < 0.8, truth.cls, 3)
        rows = torch.from_numpy(np.column_stack([boxes, random.random(len(boxes)), cls]).astype(np.float32))
        super().update(batch, [rows[truth.image == image] for image in range(len(batch["im_file"]))])


class Guesser(DetectionTrainer):
    def get_validator(self) -> DetectionValidator:
        return assemble.build_validator(
            self.args,
            self.test_loader,
            names=self.data["names"],
            save_dir=self.save_dir,
            device=self.device,
            kind=Guesses,
        )


@pytest.fixture(scope="module")
def run(shared_options: Any) -> TrainResult:
    given = shared_options(epochs=3, batch=8, fraction=0.125, lr0=0.02, keep=1)
    report = MetricReport("f1", "recall_at_p90", "map75", near_misses)
    return Guesser(overrides=given, _callbacks=[report]).train()


def by_epoch(run: TrainResult, wanted: int, **given: Any) -> Chosen:
    """Choose an epoch by its number."""
    order = iter(epoch == wanted for epoch in range(1, 4))
    return choose(run.save_dir, lambda metrics: next(order), **given)


NAMED = {
    "fitness": None,
    "map50": "metrics/mAP50(B)",
    "map": "metrics/mAP50-95(B)",
    "recall": "metrics/recall(B)",
    "f1": "metrics/F1@iou0.5_best(B)",
    "recall_at_p90": "metrics/recall@iou0.5_p90(B)",
    "recall@precision>=0.9": "metrics/recall@iou0.5_p90(B)",
    "metrics/mAP75(B)": "metrics/mAP75(B)",
}


@pytest.mark.parametrize("name", NAMED)
def test_numbers_are_those_of_the_run(run: TrainResult, name: str) -> None:
    chosen = choose(run.save_dir, name)
    logged = {int(row["epoch"]): row for row in run.history}
    key = NAMED[name]
    for epoch, value in chosen.values.items():
        row = logged[epoch]
        expected = row[key] if key else 0.1 * row["metrics/mAP50(B)"] + 0.9 * row["metrics/mAP50-95(B)"]
        assert value == pytest.approx(expected, abs=1e-12), epoch
    assert list(chosen.values) == [1, 2, 3] and min(chosen.values.values()) >= 0
    assert len(set(chosen.values.values())) > 1, "epochs differ, or nothing would be compared"
    assert chosen.best == run.best_epoch or name != "fitness"


def test_a_function_of_ones_own_gives_what_it_gave_in_the_run(run: TrainResult, tmp_path: Path) -> None:
    logged = [row["metrics/near_misses"] for row in run.history]
    assert list(choose(run.save_dir, near_misses).values.values()) == logged and len(set(logged)) > 1
    (tmp_path / "my.py").write_text("def found(metrics):\n    return {'found': len(metrics.stats['conf'])}\n")
    least = choose(run.save_dir, f"{tmp_path}/my.py:found", mode="min", out=tmp_path / "least.pt")
    assert least.values[least.best] == min(least.values.values())
    with pytest.raises(ValueError, match="defines no function 'fund'. Did you mean 'found'?"):
        choose(run.save_dir, f"{tmp_path}/my.py:fund")


def test_weights_of_the_best_epoch_are_copied_where_they_were_kept(run: TrainResult, tmp_path: Path) -> None:
    folder = run.save_dir / "weights"
    assert len(list(folder.glob("kept*.pt"))) == 1 and f"kept{run.best_epoch}.pt" in {p.name for p in folder.iterdir()}
    last = by_epoch(run, 3, out=tmp_path / "new" / "last.pt")
    assert (last.best, last.copied) == (3, tmp_path / "new" / "last.pt")
    assert load_checkpoint(tmp_path / "new" / "last.pt")["epoch"] == 2
    for epoch in set(last.values) - set(last.weights):
        none = by_epoch(run, epoch)
        assert (none.best, none.copied) == (epoch, None)
    assert {load_checkpoint(path)["epoch"] + 1 for path in last.weights.values()} == set(last.weights)


def test_the_command_prints_a_table_or_json(run: TrainResult, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["best", str(run.save_dir), "metric=map50", "classes=[1,7]", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    chosen = choose(run.save_dir, "map50", ["1", 7])
    assert told["metric"] == "map50 of 1, 7" and told["best"] == chosen.best and told["copied"] == str(chosen.copied)
    assert [row["value"] for row in told["epochs"]] == list(chosen.values.values())
    assert main(["best", str(run.save_dir), "metric=recall@precision>=0.5"]) == 0
    out = capsys.readouterr().out
    assert "recall@precision>=0.5 (max)" in out and "is the best; its weights are" in out
    assert main(["best", str(run.save_dir), "metric=f2"]) == 1
    assert "there is no metric 'f2'" in capsys.readouterr().err
    assert main(["best", str(run.save_dir), "classes=eleven"]) == 1
    assert "there is no class 'eleven'" in capsys.readouterr().err
    assert main(["best", str(run.save_dir.parent)]) == 1
    assert "holds no predictions/" in capsys.readouterr().err
