"""Schedules against torch's own schedulers, stepped on a real optimizer whose groups have different rates."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, AdamW, lr_scheduler

from eyas.callbacks.schedule import Schedule, TorchSchedule
from eyas.config import TrainOptions, resolve
from eyas.metrics import METRIC_KEYS
from small_run import SmallRun

BATCHES, ACCUMULATE = 5, 2
STEPS = 3  # optimizer steps per epoch: after batches 2, 4 and 5
RATES = (0.1, 0.003)


class Loop(SmallRun):
    """A run whose optimizer has two rates, and whose validations find given values of the fitness."""

    def __init__(self, component, epochs=6, val_every=1, values=(), warmup=0, **options):
        shape = {"epochs": epochs, "batches": BATCHES, "accumulate": ACCUMULATE, "warmup_batches": warmup}
        super().__init__(component, **shape, val_every=val_every, **options)
        self.values = list(values) or [0.0] * 1000
        groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr, "initial_lr": lr} for lr in RATES]
        self.optimizer = SGD(groups, momentum=0.9)

    def learn(self):
        """Rates are all that counts here."""

    def run(self, until=None):
        self.fire("on_pretrain_routine_end")
        while self.epoch < (until or self.epochs):
            self.train_epoch()
            if (self.epoch + 1) % self.args.val_every == 0:
                fitness = self.values[self.epoch]
                self.validated({METRIC_KEYS[2]: fitness / 2}, fitness)
            self.epoch += 1
        return self


def expected_rates(make, per, epochs=6, values=None, val_every=1):
    """Rates of both groups at every batch, from torch's scheduler on a real optimizer."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in RATES]
    optimizer = SGD(groups, momentum=0.9)
    scheduler = make(optimizer)
    optimizer.step()
    rates = []
    for epoch in range(epochs):
        for batch in range(BATCHES):
            rates.append([group["lr"] for group in optimizer.param_groups])
            last_move = epoch == epochs - 1 and batch == BATCHES - 1
            if per == "step" and (batch in (1, 3, 4)) and not last_move:
                scheduler.step()
        if per == "epoch":
            scheduler.step()
        if per == "val" and (epoch + 1) % val_every == 0:
            scheduler.step(*([values[epoch]] if values else []))
    return rates


def close(rates, expected):
    np.testing.assert_allclose(np.array(rates), np.array(expected), rtol=1e-9, atol=1e-15)


def halves(step):
    return 0.5 ** (step // 4)


CASES = {
    "StepLR": ({"step_size": 2, "gamma": 0.3}, {}),
    "MultiStepLR": ({"milestones": [2, 5], "gamma": 0.5}, {}),
    "ExponentialLR": ({"gamma": 0.9}, {}),
    "ConstantLR": ({"factor": 0.2, "total_iters": 3}, {}),
    "LinearLR": ({"start_factor": 0.1, "total_iters": 4}, {}),
    "PolynomialLR": ({"total_iters": 4, "power": 2.0}, {}),
    "LambdaLR": ({"lr_lambda": halves}, {}),
    "MultiplicativeLR": ({"lr_lambda": lambda step: 0.97}, {}),
    "CosineAnnealingWarmRestarts": ({"T_0": 3, "T_mult": 2}, {}),
    "CosineAnnealingLR": ({}, {"T_max": {"step": 18, "epoch": 6}}),
}


@pytest.mark.parametrize("per", ["step", "epoch"])
@pytest.mark.parametrize("name", CASES)
def test_rates_are_those_of_torch(name, per):
    given_arguments, filled = CASES[name]
    lengths = {key: value[per] for key, value in filled.items()}

    def make(optimizer):
        return getattr(lr_scheduler, name)(optimizer, **given_arguments, **lengths)

    loop = Loop(TorchSchedule(name, per=per, **given_arguments)).run()
    close(loop.rates, expected_rates(make, per))
    ratios = {round(a / b, 6) for a, b in loop.rates if b > 1e-9}
    assert ratios == {round(RATES[0] / RATES[1], 6)}


def test_one_cycle_follows_the_run_and_leaves_momentum_alone():
    loop = Loop(TorchSchedule("OneCycleLR")).run()

    def make(optimizer):
        return lr_scheduler.OneCycleLR(optimizer, max_lr=list(RATES), total_steps=18, cycle_momentum=False)

    close(loop.rates, expected_rates(make, "step"))
    assert {group["momentum"] for group in loop.optimizer.param_groups} == {0.9}
    assert loop.callbacks.callbacks[0].witness(loop)["schedule"]["first"] == pytest.approx(1 / 25)


def test_cyclic_momentum_is_switched_off():
    loop = Loop(TorchSchedule("CyclicLR", base_lr=0.1, max_lr=1.0, step_size_up=4)).run()
    assert max(rate for rate, _ in loop.rates) == pytest.approx(0.1) and loop.rates[0][0] == pytest.approx(0.01)


def test_plateau_looks_at_the_fitness_and_larger_is_better():
    values = [0.1, 0.2, 0.2, 0.15, 0.3, 0.29]

    def make(optimizer):
        return lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=1, factor=0.5)

    loop = Loop(TorchSchedule("ReduceLROnPlateau", patience=1, factor=0.5), values=values).run()
    close(loop.rates, expected_rates(make, "val", values=values))
    assert loop.rates[-1][0] == pytest.approx(RATES[0] / 2)
    other = TorchSchedule("ReduceLROnPlateau", metric="map50", patience=1, factor=0.5)
    assert Loop(other, values=values).run().rates == loop.rates
    assert TorchSchedule("ReduceLROnPlateau", metric="val/box_loss").kwargs["mode"] == "min"


@pytest.mark.parametrize("arguments", [{}, {"metric": "fitness"}])
def test_a_plateau_of_a_negative_fitness_is_found(arguments):
    """As `best_by="val/box_loss"` makes it; a relative threshold would take every value for a better one."""
    component = TorchSchedule("ReduceLROnPlateau", patience=1, factor=0.5, **arguments)
    loop = Loop(component, values=[-1.0] * 6).run()
    assert loop.rates[-1][0] == pytest.approx(RATES[0] / 4)
    assert "threshold_mode" not in TorchSchedule("ReduceLROnPlateau", metric="val/box_loss").kwargs
    assert TorchSchedule("ReduceLROnPlateau", threshold_mode="rel").kwargs["threshold_mode"] == "rel"


def test_validations_without_a_value_are_no_plateau():
    component = TorchSchedule("ReduceLROnPlateau", patience=0, factor=0.5)
    loop = Loop(component, values=[math.nan] * 3 + [0.1, math.inf, 0.2]).run()
    assert component.values == [0.1, 0.2] and component.moves == 2 and loop.rates[-1] == loop.rates[0]


def test_per_validation_counts_validations():
    def make(optimizer):
        return lr_scheduler.ExponentialLR(optimizer, 0.5)

    loop = Loop(TorchSchedule("ExponentialLR", per="val", gamma=0.5), val_every=2).run()
    close(loop.rates, expected_rates(make, "val", val_every=2))


def test_a_function_may_build_any_scheduler():
    def warm_then_cosine(optimizer):
        first = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=2)
        return lr_scheduler.SequentialLR(optimizer, [first, lr_scheduler.CosineAnnealingLR(optimizer, 4)], [2])

    loop = Loop(TorchSchedule(warm_then_cosine, per="epoch")).run()
    close(loop.rates, expected_rates(warm_then_cosine, "epoch"))
    by_class = Loop(TorchSchedule(lr_scheduler.StepLR, per="epoch", step_size=2)).run()
    assert by_class.rates == Loop(TorchSchedule("StepLR", per="epoch", step_size=2)).run().rates


def test_warm_up_composes():
    plain = Loop(TorchSchedule("ExponentialLR", gamma=0.9)).run()
    warm = Loop(TorchSchedule("ExponentialLR", gamma=0.9), warmup=4).run()
    for i, (a, b) in enumerate(zip(plain.rates, warm.rates, strict=True)):
        assert b == pytest.approx([min((i + 1) / 4, 1.0) * rate for rate in a])


@pytest.mark.parametrize("cut", range(1, 6))
@pytest.mark.parametrize(
    "make",
    [
        lambda: TorchSchedule("OneCycleLR"),
        lambda: TorchSchedule("CosineAnnealingLR"),
        lambda: TorchSchedule("LambdaLR", lr_lambda=lambda step: 1 / (step + 1)),
        lambda: TorchSchedule("MultiStepLR", per="epoch", milestones=[1, 4]),
        lambda: TorchSchedule("ReduceLROnPlateau", patience=0, factor=0.7),
    ],
)
def test_a_resumed_run_has_the_same_rates_to_the_bit(make, cut):
    values = [0.5, 0.4, 0.6, 0.6, 0.1, 0.2]
    whole = Loop(make(), values=values).run()
    first = Loop(make(), values=values).run(until=cut)
    state = copy.deepcopy(first.callbacks.state_dict())
    assert plain(state)
    second = Loop(make(), values=values)
    second.epoch = cut
    second.callbacks.load_state_dict(state)
    assert first.rates + second.run().rates == whole.rates
    assert second.callbacks.state_dict() == whole.callbacks.state_dict()


def plain(value):
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(item) for key, item in value.items())
    return all(map(plain, value)) if isinstance(value, list) else type(value) in (str, int, float, bool, type(None))


def test_a_run_goes_on_under_the_same_scheduler_only():
    with pytest.raises(ValueError, match="started with StepLR per step"):
        TorchSchedule("ExponentialLR", gamma=0.9).load_state_dict(TorchSchedule("StepLR", step_size=1).state_dict())


def test_a_schedule_of_the_run_s_length_holds_in_a_longer_one():
    """A `time` budget may buy more epochs than planned."""
    loop = Loop(TorchSchedule("OneCycleLR", per="epoch", anneal_strategy="linear"), epochs=3)
    loop.run(until=5)
    assert loop.rates[-1] == loop.rates[2 * BATCHES]


def test_one_cycle_of_a_length_of_its_own_holds_when_the_run_outlasts_it():
    loop = Loop(TorchSchedule("OneCycleLR", per="epoch", total_steps=3), epochs=3)
    loop.run(until=6)
    assert loop.rates[-1] == loop.rates[2 * BATCHES]
    by_function = Loop(TorchSchedule(lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=3), per="epoch"), epochs=3)
    assert by_function.run(until=6).rates[-1] == by_function.rates[2 * BATCHES]
    timed = Loop(TorchSchedule("OneCycleLR", per="epoch", total_steps=3), epochs=100, time=0.1)  # no promise
    assert timed.run(until=6).rates == loop.rates


@pytest.mark.parametrize(("source", "length"), [("default", 6), ("override", 9)])
def test_a_resumed_run_keeps_the_length_it_was_planned_with(source, length):
    """A `time` budget estimates the epochs anew; only a person who asks for more of them stretches the schedule."""
    first = Loop(TorchSchedule("CosineAnnealingLR", per="epoch"), epochs=6).run(until=3)
    second = Loop(TorchSchedule("CosineAnnealingLR", per="epoch"), epochs=9)
    second.epoch = 3
    second.args = TrainOptions.from_layers({"epochs": 9}, {"epochs": source})
    second.callbacks.load_state_dict(copy.deepcopy(first.callbacks.state_dict()))
    second.run()
    assert second.callbacks.callbacks[0].length == length
    whole = Loop(TorchSchedule("CosineAnnealingLR", per="epoch"), epochs=length).run(until=9)
    close(second.rates, whole.rates[3 * BATCHES :])


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, 3.0), st.floats(0.1, 4.0))
def test_a_function_of_progress_is_the_schedule(height, power):
    loop = Loop(Schedule(lambda progress: height * (1 - progress.fraction) ** power), epochs=2).run()
    for i, rates in enumerate(loop.rates):
        assert rates == pytest.approx([lr * height * (1 - i / (2 * BATCHES)) ** power for lr in RATES])


@pytest.mark.parametrize("factor", [math.nan, math.inf, -0.1, None, "fast"])
def test_a_factor_that_is_none_stops_the_run(factor):
    def my_rate(progress):
        return factor

    with pytest.raises(ValueError, match="my_rate"):
        Loop(Schedule(my_rate)).run()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TorchSchedule("StepLr"), "Did you mean 'StepLR'"),
        (lambda: TorchSchedule("StepLR"), "step_size"),
        (lambda: TorchSchedule("StepLR", stepsize=3), "Did you mean 'step_size'"),
        (lambda: TorchSchedule("StepLR", step_size=3, per="batch"), "per='batch'"),
        (lambda: TorchSchedule("StepLR", step_size=3, metric="f1"), "looks at no metric"),
        (lambda: TorchSchedule("ReduceLROnPlateau", per="step"), "per validation"),
        (lambda: TorchSchedule("OneCycleLR", pct_start=7), "cannot be built"),
        (lambda: TorchSchedule(lambda optimizer: None, gamma=1), "gamma"),
        (lambda: TorchSchedule(5), "a name, a class or a function"),
        (lambda: Schedule(0.5), "function of progress"),
        (lambda: Loop(TorchSchedule(lambda optimizer: 3)).run(), "no scheduler of torch"),
        (lambda: Loop(TorchSchedule(lr_scheduler.ReduceLROnPlateau, metric="f9")).run(), "no metric 'f9'"),
        (lambda: Loop(TorchSchedule(lambda o: lr_scheduler.ReduceLROnPlateau(o))).run(), "per='val'"),
        (lambda: Loop(TorchSchedule("OneCycleLR", total_steps=4)).run(), "ends after 4 moves and the run makes 18"),
    ],
)
def test_wrong_schedules_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_schedule_as_an_option():
    options = resolve(call={"schedule": {"name": "StepLR", "step_size": 2, "per": "epoch"}})
    component = TorchSchedule.from_options(options)
    assert component.describe(SmallRun()) == {"schedule": "StepLR(step_size=2) per epoch"}
    assert TorchSchedule.from_options(resolve(call={"schedule": "cosine"})) is None
    with pytest.raises(ValueError, match="lrf"):
        TorchSchedule.from_options(resolve(call={"schedule": {"name": "OneCycleLR"}, "lrf": 0.1}))


def test_the_optimizer_of_the_run_is_not_touched():
    """The scheduler has an optimizer of its own: that of the run keeps its class, state and hooks."""
    optimizer = AdamW([nn.Parameter(torch.zeros(1))], lr=0.5)
    loop = Loop(TorchSchedule("StepLR", step_size=1))
    loop.optimizer = optimizer
    optimizer.param_groups[0]["initial_lr"] = 0.5
    loop.run()
    assert type(optimizer.step).__name__ == "method"
