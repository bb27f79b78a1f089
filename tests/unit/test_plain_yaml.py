"""YAML of others: plain values come through as PyYAML reads them, and what costs more than its letters is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.plain_yaml import BYTES, DEPTH, VALUES, YamlError, compose, read_yaml

# Not the C1 control NEL: PyYAML writes it as the end of a line, and reads a blank.
TEXTS = st.text(st.characters(exclude_characters="\x85", exclude_categories=("Cs",)), max_size=9)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | TEXTS
PLAIN = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner), max_leaves=12)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.yaml"


@settings(max_examples=60, deadline=None)
@given(PLAIN, st.booleans())
def test_plain_values_come_through(tmp_path_factory: pytest.TempPathFactory, value: object, flow: bool) -> None:
    file = tmp_path_factory.getbasetemp() / "plain.yaml"
    file.write_text(yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True), encoding="utf-8")
    assert read_yaml(file) == value


def test_anchors_merges_and_dates(file: Path) -> None:
    file.write_text("a: &a {x: 1, y: [2]}\nb: *a\nc: {<<: *a, y: 3}\nf: [2026-11-28, =, '1']\n")
    first = {"x": 1, "y": [2]}
    texts = ["2026-11-28", "=", "1"]
    assert read_yaml(file) == {"a": first, "b": first, "c": {"x": 1, "y": 3}, "f": texts}
    file.write_bytes("\ufeffä: ö".encode())
    assert read_yaml(file) == {"ä": "ö"}


def bomb(levels: int) -> str:
    """Nine aliases of nine aliases of ..."""
    return "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, levels + 1)
    )


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        (bomb(9), r", line 6: more than 100,000 values, those of aliases counted again"),
        ("x: 1\n" + "a: &a {b: [*a]}", r", line 2: 'a' holds itself"),
        ("&a [*a]", r", line 1: 'a' holds itself"),
        ("a: *b", r", line 1: no valid YAML: found undefined alias 'b'"),
        *((opening * 100_000, r"more than 50 inside each other") for opening in ("[", "{a: ", "- ", "? ", "[\n")),
        ("a: " + "9" * 5000, "line 1: a number of 5,000 digits"),
        ("a: 1" + ":59" * 100_000, "a number of 300,001 digits"),
        (f"{{{', '.join(f'{(2**61 - 1) * n}: x' for n in range(1, 9))}}}", "a key of 19 digits"),
        (
            "a: !!python/object/apply:os.system [ls]",
            r"line 1: the tag 'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
        ("a: !!binary eA==", "the tag .*binary"),
        ("\n\na: !own {}", "line 3: the tag '!own' asks for more than plain values"),
        ("a: 1\nb: {c: 1, d: 2,\n c: 3}", "line 3: key 'c' was given in line 2 already"),
        ("a: 1\n'a': 2", "line 2: key 'a' was given in line 1 already"),
        ("{[1]: 2}", "line 1: a key must be a plain word or number"),
        ("a: {<<: 1}", "line 1: no valid YAML: expected a mapping"),
        ('a: "\\ud800"', r"'\\ud800' has half of a letter"),
        ("a: \0", ": no valid YAML: .*special characters are not allowed"),
        ("a: 1\n--- b", "line 2: no valid YAML: .*document"),
        ("#" * (BYTES + 1), "has more than 2 MiB"),
    ],
    ids=lambda text: text[:24],
)
def test_what_is_not_read(file: Path, text: str, tells: str) -> None:
    file.write_text(text)
    with pytest.raises(YamlError, match=tells) as error:
        read_yaml(file)
    assert str(error.value).startswith(f"{file}") and len(str(error.value).splitlines()) == 1


def test_the_bounds_are_where_they_are_said_to_be(file: Path) -> None:
    file.write_text("[" * DEPTH + "1" + "]" * DEPTH)
    assert str(read_yaml(file)).count("[") == DEPTH
    file.write_text("[" * (DEPTH + 1) + "1" + "]" * (DEPTH + 1))
    with pytest.raises(YamlError, match="inside each other"):
        read_yaml(file)
    thousands, rest = VALUES // 1000 - 2, 996  # a has a thousand; the whole, two keys and b are four
    text = f"a: &a [{','.join('1' * 999)}]\nb: [{','.join(['*a'] * thousands)},{','.join('1' * rest)}"
    assert compose(f"{text}]") is not None
    with pytest.raises(yaml.YAMLError, match="more than 100,000 values"):
        compose(f"{text},1]")


def test_what_is_no_text(file: Path) -> None:
    file.write_bytes(b"a: \xff")
    with pytest.raises(YamlError, match=r"file.yaml is not UTF-8 text \(byte 3\)"):
        read_yaml(file)
