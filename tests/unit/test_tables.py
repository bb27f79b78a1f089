"""Tables as text, whatever the width of the screen, and as HTML."""

from __future__ import annotations

import pytest

from eyas.tables import format_table, html_table, shown_width

HEADER = ("plan", "value", "why")
ROWS = [
    ("lr0", 0.004, "for AdamW, x 1 for 8 images per step"),
    ("freeze", "backbone until epoch 1 (120 tensors)", "typed"),
]


def test_columns_are_aligned_numbers_to_the_right() -> None:
    lines = format_table(["name", "n", "AP"], [["cat", 5, 0.5], ["elephant", 12, None]])
    assert lines == ["name       n   AP", "cat        5  0.5", "elephant  12    -"]


def test_an_empty_table_is_its_header() -> None:
    assert format_table(["a", "b"], []) == ["a  b"]


@pytest.mark.parametrize("width", [40, 50, 66, 80, 200])
def test_no_line_is_wider_than_the_screen_and_no_word_is_lost(width: int) -> None:
    lines = format_table(HEADER, ROWS, width, least=("why",))
    assert max(map(len, lines)) <= width
    shown = " ".join(" ".join(lines).split())
    kept = [cell for row in ROWS for cell in map(str, row[: 3 if "why" in lines[0] else 2])]
    assert all(word in shown for cell in kept for word in cell.split())
    assert ("why" in lines[0]) == (width >= 66)


def test_columns_go_in_the_order_given_and_the_others_stay_as_they_are() -> None:
    header, rows = ("class", "images", "boxes", "mAP50"), [("cat", 12345, 1234567, 0.5)]
    long = [("a cat with a name of 24 c", *rows[0][1:])]
    assert format_table(header, long, 40, ("images", "boxes"))[0].split() == ["class", "boxes", "mAP50"]
    assert format_table(header, rows, 40, ("images", "boxes")) == format_table(header, rows)


def test_a_word_that_is_longer_than_its_column_is_broken() -> None:
    lines = format_table(("file", "line"), [("x" * 90, 3)], 50)
    assert max(map(len, lines)) <= 50 and sum(line.count("x") for line in lines) == 90


def test_wide_characters_take_two_columns() -> None:
    assert shown_width("\u732b") == 2 and shown_width("e\u0301") == 1
    first, second = format_table(("name", "n"), [["\u732b\u732b", 1], ["cats", 2]])[1:]
    assert (first, second) == ("\u732b\u732b  1", "cats  2")
    assert max(map(shown_width, format_table(("name", "n"), [["\u732b" * 60, 1]], 40))) <= 40


def test_html_is_escaped() -> None:
    text = html_table(("<name>", "n"), [["<script>&", 0.25]], title='"a" < b')
    assert (
        "<script>" not in text and "&lt;script&gt;&amp;" in text and "&lt;name&gt;" in text and "a&quot; &lt; b" in text
    )
    assert "<td>0.25</td>" in text and "<thead>" not in html_table(("", ""), [["a", 1]])
