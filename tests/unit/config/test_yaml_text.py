"""Scalars as people mean them, where YAML 1.1 would surprise."""

from __future__ import annotations

import pytest

from eyas.config import parse_value
from eyas.config.resolve import read_option_file


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
        ("{a:2}", {"a": 2}),
        ("{a:2,b: 0.5,'c d':\"x\"}", {"a": 2, "b": 0.5, "c d": "x"}),
        ("{a:{b:1},c:[1,2]}", {"a": {"b": 1}, "c": [1, 2]}),
        ("[{what:backbone,epochs:5}]", [{"what": "backbone", "epochs": 5}]),
        ("{a: none, b: ~}", {"a": None, "b": None}),
        ("{none: 1, true: 2, 007: 3, 1.5: 4, no: 5}", {"none": 1, "true": 2, "007": 3, "1.5": 4, "no": 5}),
    ],
)
def test_parse_value(text, value):
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        ("{a}", "'a' has no value"),
        ("{a=2}", "'a=2' has no value"),
        ("{a:1 b:2}", "'a:1 b:2' has no value"),
        ("{a: }", "'a' has no value"),
        ("{a: 1, a: 2}", "'a' was given in line 1 already"),
        ("{1: 2, '1': 3}", "'1' was given in line 1 already"),
        ("{a:1,a: 2}", "'a' is given twice"),
    ],
)
def test_a_mapping_with_a_hole_or_a_double_is_refused(text, tells):
    with pytest.raises(ValueError, match=tells):
        parse_value(text)


def test_a_hole_in_a_file_is_told_with_its_line(tmp_path):
    (tmp_path / "o.yaml").write_text("epochs: 3\nclass_weights: {cat:2, dog}\n")
    with pytest.raises(ValueError, match=r"o\.yaml:2: class_weights: 'dog' has no value"):
        read_option_file(tmp_path / "o.yaml")
    (tmp_path / "o.yaml").write_text("epochs: 3\nclass_weights: {cat:2, dog: 1}\n")
    assert read_option_file(tmp_path / "o.yaml")[0] == {"epochs": 3, "class_weights": {"cat": 2, "dog": 1}}


@pytest.mark.parametrize("text", ["[1", "{a", "'x", "[1] 2", "{[a]: 1}", "[" * 3000])
def test_unreadable_values_are_value_errors(text):
    with pytest.raises(ValueError, match="."):
        parse_value(text)
