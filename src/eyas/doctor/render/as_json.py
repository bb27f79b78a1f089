"""A diagnosis as plain values, for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eyas.doctor.case import Case
from eyas.doctor.examine import Diagnosis
from eyas.doctor.finding import SEVERITIES, Finding, Place
from eyas.files import replacing

VERSION = 1  # raised when a key gets another meaning


def to_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return all findings with all their places as plain values; docs/doctor.md describes the keys."""
    case = diagnosis.case
    return {
        "version": VERSION,
        "data": diagnosis.data,
        "imgsz": case.imgsz,
        "checks": list(diagnosis.checks),
        "splits": {
            name: {
                "images": split.index.report.images,
                "background": split.index.report.background,
                "boxes": split.index.report.boxes,
                "instances": dict(split.index.report.instances),
            }
            for name, split in case.splits.items()
        },
        "counts": {severity: diagnosis.count(severity) for severity in SEVERITIES},
        "findings": [_finding(case, found) for found in diagnosis.findings],
    }


def write_json(diagnosis: Diagnosis, path: str | Path) -> None:
    """Write a diagnosis to a JSON file, as UTF-8.

    Raises:
        OSError: the file cannot be written.
    """
    text = json.dumps(to_dict(diagnosis), indent=2, ensure_ascii=False)
    with replacing(Path(path)) as file:  # names of files that are not UTF-8 hold lone surrogates
        file.write(text.encode("utf-8", errors="backslashreplace"))


def _finding(case: Case, found: Finding) -> dict[str, Any]:
    return {
        "check": found.check,
        "kind": found.kind,
        "severity": found.severity,
        "sentence": found.sentence,
        "action": found.action,
        "count": found.count,
        "places": [_place(case, place) for place in found.places],
        "places_not_listed": found.count - len(found.places) if found.places else 0,
    }


def _place(case: Case, place: Place) -> dict[str, Any]:
    values: dict[str, Any] = {"split": place.split, "file": place.file, "what": place.what}
    if place.line:
        values["line"] = place.line
    if place.labels:
        values["labels"] = [_label(case, place, label) for label in place.labels]
    if place.seen:
        values["seen"] = [
            {"class": case.names[seen.cls], "xyxy": [round(v, 1) for v in seen.box], "score": round(seen.score, 4)}
            for seen in place.seen
        ]
    if place.beside:
        values["beside"] = {"split": place.beside.split, "file": place.beside.file}
    return values


def _label(case: Case, place: Place, label: int) -> dict[str, Any]:
    """An object, by its number (from 1) among the usable labels of its image."""
    split = case.splits[place.split]
    row = int(split.index.label_offsets[place.image or 0]) + label
    box = [round(v, 1) for v in split.xyxy[row].tolist()]
    return {"number": label + 1, "class": case.names[int(split.cls[row])], "xyxy": box}
