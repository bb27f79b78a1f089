"""A diagnosis on the console."""

from __future__ import annotations

from eyas.doctor.examine import Diagnosis
from eyas.doctor.finding import SEVERITIES, Finding, Place, counted
from eyas.log import console, print_table

EXAMPLES = 3  # files named below a finding
_STYLE = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print what was looked at, and every finding with its first places."""
    rows: list[list[object]] = [
        [name, report.images, report.background, report.boxes, sum(count > 0 for count in report.instances.values())]
        for name, report in ((name, split.index.report) for name, split in diagnosis.case.splits.items())
    ]
    header = ["split", "images", "without boxes", "boxes", "classes"]
    print_table(f"{diagnosis.data}, at imgsz={diagnosis.case.imgsz}", header, rows)
    for found in diagnosis.findings:
        _print_finding(found)
    _line("")
    _line(summary(diagnosis))


def summary(diagnosis: Diagnosis) -> str:
    """One line: "1 error, 2 warnings, no notes; checks: files, leaks ..."."""
    counts = [(diagnosis.count(severity), severity) for severity in SEVERITIES]
    told = ", ".join(counted(count, severity) if count else f"no {severity}s" for count, severity in counts)
    if not diagnosis.findings:
        told = "Nothing found"
    return f"{told}; checks: {', '.join(diagnosis.checks)}"


def named(place: Place) -> str:
    """Return a place as one line: file, line, what, and the file to compare it with."""
    line = f":{place.line}" if place.line else ""
    labels = f", label {' and '.join(str(label + 1) for label in place.labels)}" if place.labels else ""
    what = f": {place.what}" if place.what else ""
    beside = f" ({place.beside.file})" if place.beside else ""
    return f"{place.file}{line}{labels}{what}{beside}"


def _print_finding(found: Finding) -> None:
    _line("")
    _line(f"{found.severity}: {found.kind} [{found.check}]", style=_STYLE[found.severity])
    _line(f"  {found.sentence}.")
    for place in found.places[:EXAMPLES]:
        _line(f"    {named(place)}")
    rest = found.count - min(len(found.places), EXAMPLES)
    if found.places and rest:
        _line(f"    ... and {rest:,} more")
    _line(f"  -> {found.action}")


def _line(text: str, style: str | None = None) -> None:
    console().print(text, style=style, markup=False, soft_wrap=True)
