"""Losses that are a dictionary and a tensor; values that are worked out until one is assigned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eyas.compat.values import Derived, Losses


@pytest.fixture
def losses() -> Losses:
    return Losses(box_loss=torch.tensor(2.0, requires_grad=True), cls_loss=torch.tensor(4.0))


def test_it_is_a_dictionary(losses: Losses) -> None:
    assert list(losses) == ["box_loss", "cls_loss"] and len(losses) == 2
    assert {name: float(value.detach()) for name, value in losses.items()} == {"box_loss": 2.0, "cls_loss": 4.0}


def test_it_is_a_tensor(losses: Losses) -> None:
    assert losses.tolist() == [2.0, 4.0] and losses.shape == (2,)
    assert losses[1] == 4.0 and losses[:1].tolist() == [2.0] and losses["cls_loss"] == 4.0
    assert losses.detach().cpu().numpy().sum() == 6.0 and losses.mean() == 3.0
    assert (losses * 2).tolist() == (2 * losses).tolist() == [4.0, 8.0]
    assert (losses / 2).tolist() == [1.0, 2.0] and (losses - losses).tolist() == [0.0, 0.0]
    assert (losses + torch.ones(2)).tolist() == [3.0, 5.0]


def test_functions_of_torch_and_numpy_take_it(losses: Losses) -> None:
    assert np.asarray(losses).tolist() == [2.0, 4.0]
    assert torch.stack([losses, losses]).shape == (2, 2)
    assert not torch.isnan(losses).any() and torch.cat((losses, torch.ones(1))).tolist() == [2.0, 4.0, 1.0]


def test_nothing_is_read_from_the_device_before_somebody_asks() -> None:
    """On ``meta`` no number can be read at all."""
    there = Losses(a=torch.empty((), device="meta"))
    assert (there * 2).device.type == "meta" and list(there) == ["a"]


def test_what_neither_has_is_an_attribute_error(losses: Losses) -> None:
    with pytest.raises(AttributeError, match="itms"):
        losses.itms()
    assert Losses().tolist() == []


def test_a_derived_value_is_made_each_time_and_gives_way_to_an_assigned_one() -> None:
    class Owner:
        n = 1

        @Derived
        def double(self) -> int:
            return 2 * self.n

    owner = Owner()
    assert owner.double == 2
    owner.n = 4
    assert owner.double == 8
    owner.double = 5  # type: ignore[misc, assignment]
    assert owner.double == 5
