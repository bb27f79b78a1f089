"""A stored run that was changed is refused in one line before its first step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eyas.checkpoint import CheckpointError
from eyas.run.plan import Plan
from eyas.train import checks, state
from small_run import Net, SmallRun, plan_of


@pytest.fixture(scope="module")
def run() -> SmallRun:
    return SmallRun().fit(until=1)


def plan_with(**changes: Any) -> dict[str, Any]:
    return {**plan_of(3, 4, 1, 0).to_dict(), **changes}


def test_a_plan_comes_back() -> None:
    plan = plan_of(3, 4, 1, 0)
    assert Plan.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize(
    ("changes", "tells"),
    [
        ({"epochs": "3"}, "'3' for epochs"),
        ({"batches": 0}, "0 for batches"),
        ({"accumulate": True}, "True for accumulate"),
        ({"lr0": float("nan")}, "nan for lr0"),
        ({"images": -1}, "-1 for images"),
        ({"schedule": 1}, "1 for schedule"),
        ({"decisions": [1]}, "cannot be read"),
        ({"decisions": None}, "cannot be read"),
        ({"colour": 1}, "cannot be read: .*colour"),
    ],
)
def test_values_that_no_plan_has(changes: dict[str, Any], tells: str) -> None:
    stored = {"state": {"plan": plan_with(**changes), "step": 0}}
    with pytest.raises(CheckpointError, match=f"last.pt was not opened: the plan of this run .*{tells}"):
        state.check_stored(stored, Path("last.pt"))


def test_a_run_that_stopped_behind_the_end_of_its_epoch() -> None:
    state.check_stored({"state": {"plan": plan_with(), "step": 4}}, "last.pt")  # stopped after the last batch
    with pytest.raises(CheckpointError, match="stopped after 5 batches of an epoch that has 4"):
        state.check_stored({"state": {"plan": plan_with(), "step": 5}}, "last.pt")


def shorten(stored: dict[str, Any], name: str) -> None:
    stored["state"][0][name] = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "tells"),
    [
        (lambda s: s["param_groups"][0].update(lr="fast"), "its optimizer has 'fast' for lr"),
        (lambda s: s["param_groups"][0].update(lr=float("inf")), "inf for lr"),
        (lambda s: s["param_groups"][0].pop("lr"), "its optimizer has None for lr"),
        (lambda s: s["param_groups"][0].update(betas=[0.9]), r"\[0.9\] for betas"),
        (lambda s: s["param_groups"][0].update(amsgrad=3), "3 for amsgrad"),
        (lambda s: shorten(s, "exp_avg"), r"the exp_avg of parameter 0 has the shape \(1,\)"),
        (lambda s: s["state"][0].update(exp_avg_sq=None), r"the exp_avg_sq of parameter 0 has the shape \(\)"),
        (lambda s: s["state"][0]["exp_avg"].fill_(torch.nan), "state of its optimizer is nan or infinite"),
    ],
)
def test_an_optimizer_that_the_first_step_would_fail_with(run: SmallRun, change: Any, tells: str) -> None:
    stored = copy.deepcopy(run.optimizer.state_dict())
    state.check_optimizer(run.optimizer, stored)
    change(stored)
    with pytest.raises(CheckpointError, match=tells):
        state.check_optimizer(run.optimizer, stored)


@pytest.mark.parametrize(
    ("change", "tells"),
    [
        (lambda s: s.pop("model.0.0.weight"), "state of the network does not fit this run .*Missing key"),
        (lambda s: s.update({"model.0.0.weight": torch.zeros(9)}), "does not fit this run .*size mismatch"),
        (lambda s: s.update({"model.0.0.weight": torch.zeros(4, 4, dtype=torch.int8)}), "is torch.int8"),
        (lambda s: s["model.0.0.weight"].fill_(torch.inf), r"nan or infinite \(model.0.0.weight\)"),
    ],
)
def test_weights_that_do_not_fit(change: Any, tells: str) -> None:
    net: nn.Module = Net()
    stored = copy.deepcopy(dict(net.state_dict()))
    state.load_weights(net, stored)
    change(stored)
    with pytest.raises(CheckpointError, match=tells):
        state.load_weights(net, stored)


def test_what_is_no_tensor_is_not_compared() -> None:
    net = Net()
    assert checks.holds(net, {"model": {"extra": [1], **net.state_dict()}})
    assert not checks.holds(net, {"model": {"extra": [1], "w": torch.ones(3, 3)}})
