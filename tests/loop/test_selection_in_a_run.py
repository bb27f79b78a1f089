"""Metrics, best epoch, early stopping and schedules in tiny real runs: option == component, straight == resumed."""

from __future__ import annotations

import csv
import math
from typing import Any

import pytest
import torch

from eyas.callbacks import BestBy, Callback, EarlyStop, MetricReport, Schedule, TorchSchedule
from eyas.checkpoint import load_checkpoint
from eyas.metrics.extra import metric_named
from eyas.train import DetectionTrainer

SHORT = {"fraction": 0.25, "batch": 8, "epochs": 4, "lr0": 0.01, "optimizer": "SGD"}
F1_KEY = "metrics/F1@iou0.5_best(B)"


class Crash(Exception):
    pass


class CrashAfterEpoch(Callback):
    """Ends the run where a power cut would: after the epoch's checkpoint was written."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_model_save(self, trainer: Any) -> None:
        if trainer.epoch == self.epoch:
            raise Crash


def train(options: dict[str, Any], *callbacks: Any) -> Any:
    return DetectionTrainer(overrides=options, _callbacks=list(callbacks)).train()


def log_of(result: Any) -> str:
    """The history without clocks, as text, in which nan equals nan."""
    return repr([{key: value for key, value in row.items() if key != "time"} for row in result.history])


def averaged(path: Any) -> dict[str, torch.Tensor]:
    return load_checkpoint(path)["model"]


def assert_same(one: Any, other: Any) -> None:
    assert log_of(one) == log_of(other)
    assert (one.best_epoch, one.fitness, one.epochs) == (other.best_epoch, other.fitness, other.epochs)
    ours, theirs = averaged(one.last), averaged(other.last)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_metrics_reach_log_history_and_result(options):
    by_option = train(options(**SHORT, metrics=["f1", "recall_at_p50", "ap_small"]))
    by_component = train(options(**SHORT), MetricReport("f1", "recall_at_p50", "ap_small"))
    assert_same(by_option, by_component)
    names = by_option.detection.names
    wanted = [c for name in ("f1", "recall_at_p50", "ap_small") for c in metric_named(name).columns(names)]
    with (by_option.save_dir / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(set(wanted) <= set(row) for row in rows) and all(rows[-1][key] for key in wanted)
    assert set(wanted) <= set(by_option.metrics)
    assert by_option.metrics[F1_KEY] == by_option.detection.box.f1.mean()


def test_best_files_of_several_criteria(options):
    criteria = ["map50", {"metric": "f1", "mode": "max"}, {"metric": "val/cls_loss", "name": "calm"}]
    by_option = train(options(**SHORT, best_by=criteria))
    assert_same(by_option, train(options(**SHORT), BestBy(*criteria)))
    weights = by_option.save_dir / "weights"
    for stem, key, pick in (
        ("best", "metrics/mAP50(B)", max),
        ("best_f1", F1_KEY, max),
        ("calm", "val/cls_loss", min),
    ):
        values = [row[key] for row in by_option.history]
        saved = load_checkpoint(weights / f"{stem}.pt")
        record = saved["best_by"][stem]
        assert record["epoch"] == values.index(pick(values)) + 1 == saved["epoch"] + 1
        assert record["value"] == pick(values) == saved["train_metrics"][key]


def test_an_unknown_key_never_reaches_the_first_step(options):
    steps: list[int] = []

    class Count(Callback):
        def on_train_batch_start(self, trainer: Any) -> None:
            steps.append(trainer.step)

    for changes in ({"best_by": "metrics/mAP55(B)"}, {"stop": {"metric": "val/bx_loss"}}):
        with pytest.raises(ValueError, match="Did you mean"):
            train(options(**SHORT, **changes), Count())
    assert steps == []


def test_stops_early_by_a_loss(options):
    rule = {"metric": "train/box_loss", "mode": "max", "patience": 2}
    by_option = train(options(**SHORT | {"epochs": 6, "lr0": 1e-9}, stop=rule | {"min_delta": 100}))
    assert by_option.epochs == 3  # the first value is the best, and nothing beats it by 100
    assert_same(by_option, train(options(**SHORT | {"epochs": 6, "lr0": 1e-9}), EarlyStop(**rule, min_delta=100)))


def test_a_torch_scheduler_sets_the_rates(options):
    schedule = {"name": "StepLR", "per": "epoch", "step_size": 1, "gamma": 0.5}
    plain = SHORT | {"warmup_epochs": 0.0}
    by_option = train(options(**plain, schedule=schedule))
    assert_same(by_option, train(options(**plain), TorchSchedule("StepLR", per="epoch", step_size=1, gamma=0.5)))
    assert_same(by_option, train(options(**plain), Schedule(lambda progress: 0.5**progress.epoch)))
    assert [row["lr/pg0"] for row in by_option.history] == pytest.approx([0.01 * 0.5**epoch for epoch in range(4)])


@pytest.mark.parametrize("cut", [0, 2])
def test_resumed_is_the_same_run(options, cut):
    changes = {
        "metrics": ["f1"],
        "best_by": ["val/box_loss", "f1", "map"],
        "stop": {"metric": "val/cls_loss", "patience": 3},
        "schedule": {"name": "OneCycleLR"},
        "save": True,
    }
    straight = train(options(**SHORT, **changes, name="straight"))
    cut_short = options(**SHORT, **changes, name="cut")
    with pytest.raises(Crash):
        train(cut_short, CrashAfterEpoch(cut))
    resumed = train({"resume": str(straight.save_dir.parent / "cut" / "weights" / "last.pt")})
    assert_same(straight, resumed)
    for stem in ("best", "best_f1", "best_map"):
        files = [result.save_dir / "weights" / f"{stem}.pt" for result in (straight, resumed)]
        assert files[0].exists() == files[1].exists()
        if files[0].exists():
            one, other = map(load_checkpoint, files)
            assert one["best_by"] == other["best_by"] and one["epoch"] == other["epoch"]
            assert all(torch.equal(value, other["model"][key]) for key, value in one["model"].items())


def test_a_score_below_zero_still_has_a_best_file(options):
    def regret(metrics: dict[str, float]) -> float:
        return -1.0 - metrics["val/box_loss"]

    result = train(options(**SHORT), BestBy(regret))
    assert result.best.exists() and result.fitness < -1 and math.isfinite(result.fitness)
