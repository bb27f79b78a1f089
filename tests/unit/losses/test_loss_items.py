"""What a loss returns beside the loss: items by name, values alone, or what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from eyas.losses.items import named_losses

VALUES = torch.tensor([1.0, 2.0, 3.0])


def network(*, criterion: tuple[str, ...] = (), own: tuple[str, ...] = ()) -> nn.Module:
    made = nn.Module()
    made.criterion = SimpleNamespace(loss_names=criterion)  # type: ignore[assignment]  # anything that tells names
    made.loss_names = own  # type: ignore[assignment]
    return made


@pytest.mark.parametrize("items", [VALUES, list(VALUES), tuple(VALUES)])
@pytest.mark.parametrize(
    ("given", "criterion", "own", "expected"),
    [
        (("a", "b", "c"), ("d", "e", "f"), ("g", "h", "i"), "a b c"),
        ((), ("d", "e", "f"), ("g", "h", "i"), "d e f"),
        (("a", "b"), (), ("g", "h", "i"), "g h i"),
        ((), (), (), "loss_0 loss_1 loss_2"),
    ],
)
def test_values_alone_take_the_first_names_that_are_as_many(
    items: Any, given: tuple[str, ...], criterion: tuple[str, ...], own: tuple[str, ...], expected: str
) -> None:
    loss, named = named_losses((VALUES, items), network(criterion=criterion, own=own), given)
    assert loss is VALUES
    assert list(named) == expected.split()
    assert [value.item() for value in named.values()] == [1.0, 2.0, 3.0]


def test_items_by_name_stay_as_they_are() -> None:
    items = {"mine": VALUES[0]}
    assert named_losses((VALUES, items), nn.Module())[1] is items
    assert list(named_losses((VALUES.sum(), VALUES.sum()), nn.Module())[1]) == ["loss_0"]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (VALUES, r"returned a tensor \(3,\): return \(loss, {name: tensor}\)"),
        ((VALUES, VALUES, VALUES), "returned "),
        ((VALUES, None), "a NoneType as its second value"),
        ((VALUES, VALUES[None]), r"a tensor \(1, 3\) as its second value"),
        ((VALUES, {"box": 1.0}), "{'box': a float} as its second value"),
        ((VALUES, {"box": VALUES}), r"{'box': a tensor \(3,\)} as its second value"),
        ((VALUES, "abc"), "a str as its second value"),
    ],
)
def test_anything_else_is_refused(returned: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        named_losses(returned, nn.Module())
