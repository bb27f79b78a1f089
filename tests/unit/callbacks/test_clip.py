"""Clipping, against torch's own and closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from eyas.callbacks import Callback
from eyas.callbacks.clip import ClipGradNorm, ClipGradValue, ClipMeter, clip_grad_norm, clip_grad_value
from eyas.config import TrainOptions
from small_run import SmallRun, optimizer_of


def parameter(*values: float) -> nn.Parameter:
    p = nn.Parameter(torch.zeros(len(values)))
    p.grad = torch.tensor(values)
    return p


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 4, 1))
    net(torch.randn(2, 3, 9, 9)).square().sum().backward()
    net[4].bias.grad = None  # a frozen parameter has none
    return net


def trainer_of(*groups: list[nn.Parameter]) -> SmallRun:
    run = SmallRun()
    run.optimizer = optimizer_of(groups) if groups else run.optimizer
    return run


@pytest.mark.parametrize("max_norm", [1e-3, 0.1, 10.0, 1e6])
def test_the_joint_norm_is_clipped_exactly_as_torch_does(max_norm: float) -> None:
    ours, theirs = network(), network()
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm=max_norm)
    ClipGradNorm(max_norm).adjust_gradients(trainer_of(), list(ours.parameters()))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)


@given(a=st.floats(-100, 100, width=32), b=st.floats(-100, 100, width=32))
def test_the_norm_is_that_before_clipping(a: float, b: float) -> None:
    p, q = parameter(a), parameter(b)
    norm = clip_grad_norm([p, q], 1.0)
    assert norm.item() == pytest.approx(math.hypot(a, b), rel=1e-5)
    assert math.hypot(p.grad.item(), q.grad.item()) <= 1.0 + 1e-5


def test_per_group_clips_each_group_by_itself() -> None:
    a, b, c = parameter(3.0, 4.0), parameter(0.3), parameter(0.4)
    component = ClipGradNorm(1.0, per_group=True)
    trainer = trainer_of([a], [b, c], [nn.Parameter(torch.zeros(1))])
    component.adjust_gradients(trainer, [a, b, c])
    torch.testing.assert_close(a.grad, torch.tensor([0.6, 0.8]))
    assert (b.grad.item(), c.grad.item()) == pytest.approx((0.3, 0.4))  # norm 0.5: not clipped
    component.on_train_epoch_end(trainer)
    assert trainer.epoch_log == {"grad/norm": pytest.approx(math.hypot(5.0, 0.5)), "grad/clipped": 1.0}
    assert component.witness(trainer)["clip_per_group"] == {"groups": 2}


def test_per_group_without_any_gradient_does_nothing() -> None:
    p = nn.Parameter(torch.zeros(1))
    ClipGradNorm(1.0, per_group=True).adjust_gradients(trainer_of([p]), [p])
    assert p.grad is None


def test_values_are_cut_as_torch_does() -> None:
    ours, theirs = network(), network()
    largest = max(p.grad.abs().max() for p in ours.parameters() if p.grad is not None)
    torch.nn.utils.clip_grad_value_(theirs.parameters(), 0.05)
    assert clip_grad_value(ours.parameters(), 0.05) == largest
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)


def test_an_epochs_row_holds_means_over_its_steps() -> None:
    component, trainer = ClipGradNorm(2.0), trainer_of()
    for size in (1.0, 3.0, 8.0, 2.0):
        component.adjust_gradients(trainer, [parameter(size)])
    component.on_train_epoch_end(trainer)
    assert trainer.epoch_log == {"grad/norm": 3.5, "grad/clipped": 0.5}
    trainer.epoch_log = {}
    component.on_train_epoch_end(trainer)  # an epoch without a step has no row
    assert trainer.epoch_log == {}
    component.adjust_gradients(trainer, [parameter(1.0)])
    component.on_train_epoch_end(trainer)
    assert trainer.epoch_log == {"grad/norm": 1.0, "grad/clipped": 0.0}
    assert component.witness(trainer) == {"clip_grad_norm": {"steps": 5, "clipped": 2, "largest": 8.0}}


def test_clipping_by_value_has_columns_of_its_own() -> None:
    component, trainer = ClipGradValue(2.0), trainer_of()
    for size in (1.0, -3.0):
        component.adjust_gradients(trainer, [parameter(size, 0.5)])
    component.on_train_epoch_end(trainer)
    assert trainer.epoch_log == {"grad/max": 2.0, "grad/cut": 0.5}
    assert component.witness(trainer) == {"clip_grad_value": {"steps": 2, "clipped": 1, "largest": 3.0}}


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_a_skipped_step_does_not_poison_the_mean(broken: float) -> None:
    component, trainer = ClipGradNorm(2.0), trainer_of()
    for size in (broken, 1.0, broken, 3.0):
        component.adjust_gradients(trainer, [parameter(size)])
    component.on_train_epoch_end(trainer)
    assert trainer.epoch_log == {"grad/norm": 2.0, "grad/clipped": 0.5}


@given(sizes=st.lists(st.floats(0, 1e4, width=32), min_size=2, max_size=8), data=st.data())
def test_a_resume_inside_an_epoch_goes_on_counting(sizes: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(sizes)))

    def feed(meter: ClipMeter, part: list[float]) -> None:
        for size in part:
            meter.update(torch.tensor(size), torch.tensor(size > 100))

    straight, first, second = ClipMeter(), ClipMeter(), ClipMeter()
    feed(straight, sizes)
    feed(first, sizes[:cut])
    second.load_state_dict(first.state_dict())
    feed(second, sizes[cut:])
    assert second.seen() == straight.seen()
    assert second.close() == straight.close()
    assert second.state_dict() == straight.state_dict()


def test_the_state_is_made_of_plain_values() -> None:
    component = ClipGradNorm(2.0)
    component.adjust_gradients(trainer_of(), [parameter(3.0)])
    assert component.state_dict() == {"steps": 0, "clipped": 0, "largest": 0.0, "sums": [1.0, 1.0, 3.0, 3.0]}
    other = ClipGradNorm(2.0)
    assert other.witness(trainer_of()) == {}
    other.load_state_dict(component.state_dict())
    assert other.witness(trainer_of()) == component.witness(trainer_of())


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_limit_is_above_zero(value: float) -> None:
    with pytest.raises(ValueError, match="max_norm > 0"):
        ClipGradNorm(value)
    with pytest.raises(ValueError, match="max_value > 0"):
        ClipGradValue(value)


def test_options_make_the_same_components() -> None:
    stock = ClipGradNorm.from_options(TrainOptions())
    assert stock is not None
    assert (stock.max_norm, stock.per_group) == (10.0, False)
    assert ClipGradNorm.from_options(TrainOptions(clip_grad_norm=0)) is None
    both = ClipGradNorm.from_options(TrainOptions(clip_grad_norm=0.1, clip_per_group=True))
    assert both is not None
    assert both.describe(SmallRun()) == {"clipping by norm": "0.1 for each group"}
    assert both.clip_text(SmallRun()) == "norm 0.1 for each group"
    assert ClipGradValue.from_options(TrainOptions()) is None
    value = ClipGradValue.from_options(TrainOptions(clip_grad_value=0.5))
    assert value is not None
    assert value.describe(SmallRun()) == {"clipping by value": "0.5"}
    assert value.clip_text(SmallRun()) == "value 0.5"
    with pytest.raises(ValueError, match="clip_per_group=True has no effect with clip_grad_norm=0"):
        ClipGradNorm.from_options(TrainOptions(clip_grad_norm=0, clip_per_group=True))


def test_the_largest_of_a_run_is_kept() -> None:
    meter = ClipMeter()
    for size in (5.0, 1.0):  # an epoch each
        meter.update(torch.tensor(size), torch.tensor(size > 2))
        meter.close()
    assert meter.seen() == {"steps": 2, "clipped": 1, "largest": 5.0}


class Halves(Callback):
    def adjust_gradients(self, trainer: Any, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        for p in parameters:
            p.grad.data.mul_(0.5)  # a tensor keeps no count of what is written through .data
        return parameters


def test_norms_that_were_recorded_are_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    p, q = parameter(3.0), parameter(4.0)
    component = ClipGradNorm(1.0)
    trainer = SmallRun(component)
    component.on_train_epoch_start(trainer)
    norms = trainer.gradient_norms.of([q, p])
    with monkeypatch.context() as patch:
        patch.setattr(torch, "_foreach_norm", None)
        component.adjust_gradients(trainer, [p, q])
    assert [norm.item() for norm in norms] == [4.0, 3.0]
    torch.testing.assert_close(torch.stack([p.grad, q.grad]).flatten(), torch.tensor([0.6, 0.8]))
    assert trainer.gradient_norms.total([p, q]).item() == pytest.approx(1.0), "the gradients are others by now"
    p.grad = torch.tensor([12.0])
    assert trainer.gradient_norms.total([p]).item() == 12.0
    trainer.gradient_norms.forget()
    assert not trainer.gradient_norms._known


def test_norms_are_made_again_where_others_may_have_changed_the_gradients() -> None:
    p = parameter(2.0)
    halves, component = Halves(), ClipGradNorm(1.0)
    trainer = SmallRun(halves, component)
    component.on_train_epoch_start(trainer)
    trainer.gradient_norms.of([p])
    component.adjust_gradients(trainer, halves.adjust_gradients(trainer, [p]))
    assert p.grad.item() == pytest.approx(1.0)
