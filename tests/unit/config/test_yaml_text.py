"""Scalars as people mean them, where YAML 1.1 would surprise."""

from __future__ import annotations

import pytest

from eyas.config import parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("007", 7),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("true", True),
        ("False", False),
        ("none", None),
        ("None", None),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("nan", "nan"),
        ("2024-01-01", "2024-01-01"),
        ("cuda:0", "cuda:0"),
        ("runs/a b", "runs/a b"),
        ("'3'", "3"),
        ("[0, 1e-3, a, 'true']", [0, 0.001, "a", "true"]),
        ("{a: 1, 2: [b]}", {"a": 1, 2: ["b"]}),
        ("9" * 400, "9" * 400),
    ],
)
def test_parse_value(text, value):
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["[1", "{a", "'x", "[1] 2", "{[a]: 1}", "[" * 3000])
def test_unreadable_values_are_value_errors(text):
    with pytest.raises(ValueError, match="."):
        parse_value(text)
