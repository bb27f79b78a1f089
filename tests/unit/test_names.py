"""A mistyped name is answered with real ones that resemble it, or with nothing; of many names a few are told."""

from __future__ import annotations

from eyas.names import a_few, did_you_mean, nearest

KNOWN = ("backbone", "back", "neck", "head")


def test_the_best_comes_first_and_no_more_than_asked_for() -> None:
    assert nearest("backbon", KNOWN, n=2) == ["backbone", "back"]
    assert nearest("backbon", KNOWN) == ["backbone"]
    assert nearest("Neck", iter(KNOWN)) == ["neck"]
    assert nearest("NECK", KNOWN) == []
    assert nearest(7, ["70"], cutoff=0.6) == ["70"]


def test_a_stricter_cutoff_keeps_what_resembles_less_away() -> None:
    assert nearest("nek", KNOWN) == ["neck"]  # the ratio is 6 / 7
    assert nearest("nek", KNOWN, cutoff=0.9) == []


def test_the_sentence_hangs_behind_another_one() -> None:
    assert did_you_mean("hed", KNOWN) == " Did you mean 'head'?"
    assert did_you_mean("backbon", KNOWN, n=2) == " Did you mean 'backbone' or 'back'?"
    assert did_you_mean("zzz", KNOWN) == ""


def test_a_few_of_many() -> None:
    assert a_few(("a", "b", "c")) == "a, b, c"
    assert a_few([str(i) for i in range(1234)], 2) == "0, 1 and 1,232 more"
    assert a_few([]) == ""
