"""DEIM in the loop: phases reach the samples, and stage 2 begins from the best of stage 1, whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from eyas.callbacks import Callback
from eyas.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from eyas.data.sampler import SampleKey
from eyas.optim import unwrap_model
from eyas.optim.schedules import flat_cosine
from eyas.train import DEIMTrainer
from eyas.train.deim import Stages

Options = Callable[..., dict[str, Any]]


class Cut(Exception):
    pass


class Watch(Callback):
    """Decides which epoch is how good; keeps the weights after each epoch, and those that an epoch begins with."""

    def __init__(self, fitness: list[float], cut: int = 0) -> None:
        self.fitness, self.cut = fitness, cut
        self.ends: list[dict[str, Tensor]] = []
        self.starts: dict[int, dict[str, Tensor]] = {}

    def adjust_fitness(self, trainer: Any, fitness: float) -> float:
        return self.fitness[trainer.epoch]

    def on_train_batch_start(self, trainer: Any) -> None:
        if trainer.step == 0:
            self.starts[trainer.epoch] = weights_of(trainer)

    def on_model_save(self, trainer: Any) -> None:
        self.ends.append(weights_of(trainer))
        if trainer.epoch + 1 == self.cut:
            raise Cut


def weights_of(trainer: Any) -> dict[str, Tensor]:
    """Network, average and moments of the optimizer."""
    moments = trainer.optimizer.state_dict()["state"]
    return {
        **{key: value.clone() for key, value in unwrap_model(trainer.model).state_dict().items()},
        **{f"average.{key}": value.clone() for key, value in trainer.ema.ema.state_dict().items()},
        **{f"moment.{i}": state["exp_avg"].clone() for i, state in moments.items()},
    }


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.fixture
def deim_options(options: Options) -> Options:
    """Options of a training of eight images, two steps for an epoch, whose last epoch is the second stage."""
    common = {"model": "deim-tiny", "fraction": 0.13, "batch": 4, "epochs": 3, "close_mosaic": 1, "multi_scale": 0.0}
    return lambda **changes: options(**(common | changes))


def test_stage_two_begins_from_the_best_weights_straight_or_resumed(deim_options: Options) -> None:
    straight = Watch([0.5, 0.1, 0.2])
    trainer = DEIMTrainer(overrides=deim_options(name="straight"), _callbacks=[straight])
    trainer.train()
    assert trainer.stages == Stages(calm=0, dense=1, second=2)
    assert same(straight.starts[2], straight.ends[0]), "the first epoch was the best"
    assert same(straight.starts[1], straight.ends[0]) and not same(straight.starts[2], straight.ends[1])
    assert trainer.best_epoch == 1 and load_checkpoint(trainer.snapshot)["epoch"] == 0
    # A power cut between the stages.
    cut = DEIMTrainer(overrides=deim_options(name="cut"), _callbacks=[Watch([0.5, 0.1, 0.2], cut=2)])
    with pytest.raises(Cut):
        cut.train()
    resumed = Watch([0.5, 0.1, 0.2])
    DEIMTrainer(overrides={"resume": str(cut.last)}, _callbacks=[resumed]).train()
    assert same(resumed.starts[2], straight.starts[2]) and same(resumed.ends[-1], straight.ends[-1])


def test_the_best_epoch_may_be_the_last_one_of_stage_one(deim_options: Options) -> None:
    watch = Watch([0.5, 0.2])
    trainer = DEIMTrainer(overrides=deim_options(epochs=2), _callbacks=[watch])
    trainer.train()
    assert load_checkpoint(trainer.snapshot)["epoch"] == 0 and same(watch.starts[1], watch.ends[0])


def test_a_snapshot_that_is_lost_or_of_another_run_is_refused(deim_options: Options) -> None:
    trainer = prepared(deim_options())
    trainer.best_epoch, trainer.started = 1, 0.0
    with pytest.raises(CheckpointError, match=r"stage1\.pt is gone, from which stage 2 begins"):
        trainer.read_snapshot()
    save_checkpoint(trainer.checkpoint(finished_epoch=True) | {"epoch": 1}, trainer.snapshot)
    with pytest.raises(CheckpointError, match=r"stage1\.pt holds epoch 2, and the best one is 1: it is of another run"):
        trainer.read_snapshot()


def prepared(options: dict[str, Any]) -> DEIMTrainer:
    trainer = DEIMTrainer(overrides=options)
    with trainer.prepared():
        return trainer


@pytest.mark.parametrize(("changes", "why"), [({"val": False}, "val=False"), ({"val_every": 3}, "val_every=3")])
def test_a_run_without_validation_in_stage_one_is_refused(
    deim_options: Options, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=f"{why} leaves the 2 epochs of stage 1 without a validation"):
        prepared(deim_options(**changes))


def test_without_a_second_stage_nothing_needs_to_be_measured(deim_options: Options) -> None:
    assert prepared(deim_options(val=False, close_mosaic=0)).stages.second == 3


def test_a_budget_of_time_is_refused(deim_options: Options) -> None:
    options = {name: value for name, value in deim_options(time=0.5).items() if name not in ("epochs", "close_mosaic")}
    with pytest.raises(ValueError, match=r"time=0\.5 has no place in DEIM"):
        DEIMTrainer(overrides=options)


def test_phases_reach_the_samples_and_the_rate(deim_options: Options) -> None:
    trainer = prepared(deim_options(epochs=58, close_mosaic=8, mosaic=1.0, crop=0.0, zoom_out=0.0, mixup=0.0))
    dataset = trainer.train_loader.dataset
    pictures = [len(dataset.params(SampleKey(epoch, 0, 0, (0, 1, 2, 3))).sources) for epoch in (3, 4, 28, 29)]
    assert pictures == [1, 4, 4, 1]
    assert len(dataset.params(SampleKey(10, 0, 0, (0, 1, 2, 3), mosaic_closed=True)).sources) == 1
    factors = [trainer.lf(epoch / 58) for epoch in (1, 29, 30, 35, 39.5, 45, 50, 57)]
    # Spec detr 3.3, rates of L over its base of 5e-4.
    assert factors == pytest.approx([1, 1, 0.9972, 0.9059, 0.75, 0.56674, 0.5, 0.5], abs=1e-4)
    assert flat_cosine(0.75, 0.1) == pytest.approx(0.55), "without an end of its own, it falls to the end of the run"


def test_the_warm_up_is_squared(deim_options: Options) -> None:
    trainer = prepared(deim_options(epochs=40, warmup_epochs=5, close_mosaic=4))
    trainer.epoch, trainer.step = 2, 0
    done = 1 + 2 * len(trainer.train_loader)
    assert trainer.warm_up_done() == pytest.approx((done / trainer.plan.warmup_batches) ** 2)
