"""The lists of planted faults keep up with the code: each still has its text, once, and its tests."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def mutants():
    sys.path.insert(0, str(HERE))
    try:
        from plant import load
    finally:
        sys.path.remove(str(HERE))
    return load()


def test_every_fault_can_still_be_planted(mutants):
    assert mutants
    counts = {f"{m.package}: {m.file}: {m.loses}": m.occurrences(ROOT / "src") for m in mutants}
    assert {what: count for what, count in counts.items() if count != 1} == {}
    assert [m.loses for m in mutants if m.old == m.new] == []


def test_every_fault_is_still_a_program(mutants):
    """What cannot be compiled is caught by everything, and shows nothing."""
    texts = {m.file: (ROOT / "src" / "eyas" / m.file).read_text(encoding="utf-8") for m in mutants}
    for m in mutants:
        ast.parse(texts[m.file].replace(m.old, m.new), f"{m.file}: {m.loses}")


def test_every_fault_is_looked_for_by_tests_that_exist(mutants):
    assert [m.loses for m in mutants if not m.tests] == []
    missing = []
    for test in sorted({test for m in mutants for test in m.tests}):
        path, *names = re.split("::", test.split("[")[0])
        text = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).is_file() else ""
        if not text or not all(re.search(rf"\b(def|class) {name}\b", text) for name in names):
            missing.append(test)
    assert missing == []
