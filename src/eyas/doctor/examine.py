"""A whole examination: the data set is opened, every check looks at it, and what they find is put in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.data.dataset_yaml import SPLITS, check_dataset
from eyas.data.depth import White
from eyas.data.formats.yolo import TextRules
from eyas.data.index import ImageIndex, build_index
from eyas.doctor.case import Case, Split
from eyas.doctor.checks import disagreement
from eyas.doctor.checks.registry import CHECKS, MODEL, WHAT
from eyas.doctor.detector import IMGSZ, SecondOpinion
from eyas.doctor.finding import SEVERITIES, Finding, Severity
from eyas.names import did_you_mean


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a data set.

    Attributes:
        data: how the data set was named.
        case: what was looked at.
        findings: the worst first.
        checks: names of the checks that were made.
    """

    data: str
    case: Case
    findings: tuple[Finding, ...]
    checks: tuple[str, ...]

    def count(self, severity: Severity) -> int:
        """Number of findings of one severity."""
        return sum(found.severity == severity for found in self.findings)

    def fails(self, strict: bool = False) -> bool:
        """Whether there are errors; with ``strict``, whether there are warnings or errors."""
        return bool(self.count("error") or (strict and self.count("warning")))


def examine(
    data: str | Path | Mapping[str, Any],
    *,
    imgsz: int | None = None,
    model: str | None = None,
    checks: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    ids_start: int | None = None,
    val_fraction: float | None = None,
    device: str | int | None = None,
    workers: int | None = None,
    cache_dir: str | Path | None = None,
) -> Diagnosis:
    """Look for what is wrong with a data set. Nothing of it is changed.

    Args:
        data: as ``eyas.data.check_dataset`` takes it: a YAML file, a folder with one, "digits", a mapping.
        imgsz: long side of an image in the network, px, by which boxes are called tiny; default that of the model, else
            640.
        model: a checkpoint, whose detections are compared with the labels.
        checks: names of those to make; None: all, and "model" if there is one.
        skip: names of those to leave out.
        ids_start: the class id that label files begin with.
        val_fraction: share of the training images to hold out for val.
        device: where the model runs; None: the best there is.
        workers: processes that decode images; None: as many as are worth it.
        cache_dir: see `eyas.data.cache.cache_root`.

    Raises:
        ValueError: no such data set or check, a description that contradicts itself, a model that knows none of the
            classes.
    """
    chosen = choose(checks, skip, model)
    described = check_dataset(
        data,
        splits=("train",),
        optional=SPLITS[1:],
        ids_start=ids_start,
        val_fraction=val_fraction,
        cache_dir=cache_dir,
    )
    opinion = SecondOpinion(model, described["names"], imgsz=imgsz, device=device) if model else None
    size = imgsz or (opinion.imgsz if opinion else IMGSZ)
    splits, closed = [], {}
    for name in SPLITS:
        if described[name]:
            try:
                splits.append(Split(_index(described, name, cache_dir), imgsz=size, workers=workers))
            except ValueError as error:
                closed[name] = str(error)
    case = Case(described["names"], splits, closed, size)
    found = [finding for check in CHECKS if check.name in chosen for finding in check.look(case)]
    if opinion and MODEL in chosen:
        found += disagreement.look(case, opinion)
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Diagnosis(str(described["yaml_file"] or "data"), case, tuple(found), tuple(chosen))


def choose(checks: Sequence[str] | None, skip: Sequence[str], model: str | None) -> list[str]:
    """Return the names of the checks to make, in their order.

    Raises:
        ValueError: a name that there is not, nothing left, the model's check without a model, or a model without it.
    """
    for option, names in (("checks", checks or ()), ("skip", skip)):
        for name in names:
            if name not in WHAT:
                known = ", ".join(WHAT)
                raise ValueError(f"{option}: there is no check {name!r}.{did_you_mean(name, WHAT)} There are {known}.")
    if checks is not None and MODEL in checks and not model:
        raise ValueError(f"checks: {MODEL} compares labels with what a model finds; add model=best.pt.")
    wanted = [name for name in WHAT if checks is None or name in checks]
    chosen = [name for name in wanted if name not in skip and (name != MODEL or model)]
    if not chosen:
        raise ValueError("checks and skip leave no check to make.")
    if model and MODEL not in chosen:
        raise ValueError(f"model={model} has no effect: its check, {MODEL!r}, is left out.")
    return chosen


def _index(described: Mapping[str, Any], split: str, cache_dir: str | Path | None) -> ImageIndex:
    top = described["value_range"]
    return build_index(
        described[split],
        names=described["names"],
        val_fraction=described["val_fraction"],
        rules=TextRules(described["ids"], described["keypoints"], described["path"]),
        white=White.everywhere(top) if top else None,
        cache_dir=cache_dir,
        split=split,
    )
