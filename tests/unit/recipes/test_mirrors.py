"""Objects that a mirror turns into others, found from the names of the classes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.recipes.mirrors import mirrored_classes


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (list("0123456789"), "characters"),
        (list("bdpq"), "characters"),
        (["seven", "eight"], "characters"),
        (["digit_0", "digit_1", "plate"], "characters"),
        (["turn_left", "stop"], "'turn_left' has a side"),
        (["arrowRight", "stop"], "'arrowRight' has a side"),
        (["stop", "左折"], "'左折' has a side"),
        (["limit 30", "limit 50", "stop"], "2 classes differ in the number of 'limit #'"),
        (["10C", "9C", "joker"], "2 classes differ in the number of '#C'"),
    ],
)
def test_characters_sides_and_numbers_are_seen(names: list[str], reason: str) -> None:
    assert reason in str(mirrored_classes(names))


@pytest.mark.parametrize(
    "names",
    [
        ["RBC", "WBC", "Platelets"],
        ["person", "x"],  # one letter is no alphabet
        ["0"],
        ["犬", "猫"],  # dog and cat: a character each, and a word each
        ["bright", "copyright", "cleft"],  # words that contain a side
        ["one way", "stone", "bone"],
        ["F16", "cat"],
        [],
    ],
)
def test_other_names_leave_mirroring_on(names: list[str]) -> None:
    assert mirrored_classes(names) is None


@given(st.lists(st.text(max_size=12), max_size=8))
def test_any_names_have_an_answer_that_their_order_does_not_change(names: list[str]) -> None:
    assert (mirrored_classes(names) is None) == (mirrored_classes(names[::-1]) is None)
