"""What is nan or infinite is found, wherever in a checkpoint it is, and what is large or infinite by design is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from eyas.checkpoint import CheckpointError, broken_parts, unbounded_buffers
from eyas.train.checks import refuse_to_save


def small_checkpoint() -> dict[str, Any]:
    weights = {"w": torch.full((3, 4), 1e38), "half": torch.ones(2, dtype=torch.float16), "count": torch.tensor(7)}
    weights |= {"mask": torch.tensor([0.0, -torch.inf]), "empty": torch.zeros(0), "double": torch.ones(1).double()}
    moments = {"exp_avg": torch.ones(3, 4), "exp_avg_sq": torch.full((3, 4), 1e38), "step": torch.tensor(4.0), "k": 1}
    state = {"model": weights, "optimizer": {"state": {0: moments}, "param_groups": []}, "best": -torch.inf}
    return {"model": {name: tensor.clone() for name, tensor in weights.items()}, "state": state}


def test_large_numbers_and_infinity_by_design_are_fine() -> None:
    assert broken_parts(small_checkpoint(), {"mask"}) == []
    refuse_to_save(small_checkpoint(), {"mask"})


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        (("state", "model", "w"), "the weights (w)"),
        (("state", "model", "half"), "the weights (half)"),
        (("model", "w"), "their average (w)"),
        (("state", "optimizer", "state", 0, "exp_avg_sq"), "the state of the optimizer (exp_avg_sq of parameter 0)"),
    ],
)
def test_one_wrong_number_is_found_and_named(value: float, place: tuple[Any, ...], said: str) -> None:
    checkpoint = tensor = small_checkpoint()
    for key in place:
        tensor = tensor[key]
    tensor.view(-1)[-1] = value
    assert broken_parts(checkpoint, {"mask"}) == [said]
    with pytest.raises(CheckpointError, match="nothing was saved"):
        refuse_to_save(checkpoint, {"mask"})


def test_nan_is_wrong_where_infinity_is_not() -> None:
    checkpoint = small_checkpoint()
    checkpoint["state"]["model"]["mask"][0] = torch.nan
    assert broken_parts(checkpoint, {"mask"}) == ["the weights (mask)"]


def test_a_run_without_an_average_and_best_weights_have_one_part() -> None:
    checkpoint = small_checkpoint()
    checkpoint["model"] = dict(checkpoint["state"]["model"])
    checkpoint["model"]["w"][0, 0] = checkpoint["model"]["half"][0] = torch.inf
    assert broken_parts(checkpoint, {"mask"}) == ["the weights (w and 1 more)"]
    del checkpoint["state"]
    assert broken_parts(checkpoint, {"mask"}) == ["the weights (w and 1 more)"]


def test_what_a_model_holds_from_the_start_is_by_design_but_not_nan() -> None:
    model = nn.Module()
    for name, value in {"mask": -torch.inf, "plain": 1.0, "bad": torch.nan}.items():
        model.register_buffer(name, torch.tensor([0.0, value]))
    assert unbounded_buffers(model) == {"mask"}
