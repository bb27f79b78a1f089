"""The same image in two splits, which makes a result too good, or twice in one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from eyas.doctor.alike import EQUAL, MIRRORED
from eyas.doctor.case import Alike, Case
from eyas.doctor.finding import Finding, counted, finding, percent

BETWEEN, WITHIN = "leaks", "duplicates"


def look_between(case: Case) -> Iterator[Finding]:
    """Name images of a split that an earlier split shows too: train before val before test."""
    for (first, second, equal), pairs in _grouped(case).items():
        if first != second:
            images = f"{counted(len(pairs), 'image')} of {second} ({percent(len(pairs), len(case.splits[second]))})"
            yield finding(
                BETWEEN,
                "same file in two splits" if equal else "same scene in two splits",
                "error" if equal else "warning",
                f"{images} {_are(pairs)} in {first} too, byte for byte"
                if equal
                else f"{images} {_show(pairs)} what an image of {first} shows: scaled, saved anew, mirrored, or the "
                "next of a series",
                f"Remove them from {second}, or from {first}: what is measured on them is memory.",
                (pair.place(_how(pair)) for pair in pairs),
                len(pairs),
            )


def look_within(case: Case) -> Iterator[Finding]:
    """Name images that their own split has twice."""
    for (first, second, equal), pairs in _grouped(case).items():
        if first == second:
            images = f"{first}: {counted(len(pairs), 'image')} ({percent(len(pairs), len(case.splits[first]))})"
            yield finding(
                WITHIN,
                "same file twice" if equal else "nearly the same image",
                "warning" if equal else "note",
                f"{images} {_are(pairs)} there under another name too"
                if equal
                else f"{images} {_show(pairs)} what another one shows",
                "Keep one of each: a copy only gives its objects more weight."
                if equal
                else "Nothing need be done, but such images teach little, and belong in the same split.",
                (pair.place(_how(pair)) for pair in pairs),
                len(pairs),
            )


def _grouped(case: Case) -> dict[tuple[str, str, bool], list[Alike]]:
    groups: dict[tuple[str, str, bool], list[Alike]] = defaultdict(list)
    for pair in case.alike:
        groups[pair.split_a.name, pair.split_b.name, pair.how == EQUAL].append(pair)
    return groups


def _how(pair: Alike) -> str:
    return "the same file" if pair.how == EQUAL else "mirrored" if pair.how == MIRRORED else "nearly the same"


def _are(pairs: list[Alike]) -> str:
    return "is" if len(pairs) == 1 else "are"


def _show(pairs: list[Alike]) -> str:
    return "shows" if len(pairs) == 1 else "show"
