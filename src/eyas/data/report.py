"""What was found in a data set, and what was wrong with it: counts and flat rows, for a table and for a JSON file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from eyas.files import replacing

# Rows kept in full. One systematic mistake in a million images must not fill the memory; counts stay exact.
MAX_ROWS = 10_000
EXPECTED = ("hidden", "not an image (")  # what lies in image folders everywhere; counted, and named in the file only


class Weight(NamedTuple):
    """What a kind of problem costs: whether what it is about is used all the same, and how bad that is."""

    kept: bool
    severity: Literal["error", "warning", "note"]


KINDS: dict[str, Weight] = {}
"""{kind: its weight} of the problems that may be found in a data set, as `kept_kind` and `lost_kind` define them."""


def kept_kind(kind: str, severity: Literal["warning", "note"] = "note") -> str:
    """Define a kind of problem that costs nothing: what it is about is trained on; a warning may be a mistake."""
    KINDS[kind] = Weight(True, severity)
    return kind


def lost_kind(kind: str, severity: Literal["error", "warning"] = "error") -> str:
    """Define a kind of problem that costs an image, a row or all rows of an image; a warning costs nothing new."""
    KINDS[kind] = Weight(False, severity)
    return kind


def weight_of(kind: str) -> Weight:
    """Return the weight of a kind; of one that nobody has defined, as of a format from outside, the worst."""
    return KINDS.get(kind, Weight(False, "error"))


class Problem(NamedTuple):
    """One finding: file, 1-based line in a label file (0 = whole file), kind, and a sentence for people."""

    file: str
    line: int
    kind: str
    message: str


@dataclass
class DatasetReport:
    """Counts of one split and its problems.

    Attributes:
        split: "train", "val" or "test".
        images: images kept, background images included.
        background: kept images without any box.
        boxes: boxes kept.
        instances: {class name: boxes}.
        problems: the first `MAX_ROWS` problems.
        counts: {kind: number of problems}, exact.
        left_out: {reason: number of images}, of those that cannot be used.
        unused: {reason: number} of files among images and labels that are neither.
        unused_names: {reason: paths of the first of these}.
        choices: how files were read, where that had to be decided: `label_ids` (what label files call each class),
            `val_fraction` (share of the training images that is held out), `white` (by kind of values beyond 8 bits).
        notes: the same in sentences.
        doubts: what may be wrong with that.
    """

    split: str = "train"
    images: int = 0
    background: int = 0
    boxes: int = 0
    instances: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    unused: dict[str, int] = field(default_factory=dict)
    unused_names: dict[str, list[str]] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def add(self, problems: Iterable[Problem]) -> None:
        """Record problems, keeping at most `MAX_ROWS` rows."""
        for problem in problems:
            self.counts[problem.kind] += 1
            if len(self.problems) < MAX_ROWS:
                self.problems.append(problem)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to JSON."""
        return {
            "images": self.images,
            "background": self.background,
            "boxes": self.boxes,
            "instances": self.instances,
            "images_left_out": dict(self.left_out),
            "unused_files": self.unused,
            "unused_files_named": self.unused_names,
            "choices": self.choices,
            "notes": self.notes,
            "doubts": self.doubts,
            "problem_counts": dict(self.counts),
            "problems": [problem._asdict() for problem in self.problems],
            "problems_not_listed": sum(self.counts.values()) - len(self.problems),
        }

    @classmethod
    def from_dict(cls, split: str, values: dict[str, Any]) -> DatasetReport:
        """The inverse of `to_dict`; what is decided for each run is told anew."""
        return cls(
            split=split,
            images=values["images"],
            background=values["background"],
            boxes=values["boxes"],
            instances=dict(values["instances"]),
            problems=[Problem(**row) for row in values["problems"]],
            counts=Counter(values["problem_counts"]),
            left_out=Counter(values["images_left_out"]),
        )

    def summary(self) -> str:
        """One line: "train: 205 images (3 background), 4,887 boxes, 2 problems (zero size 2)"."""
        text = f"{self.split}: {self.images:,} images ({self.background:,} background), {self.boxes:,} boxes"
        parts = (
            ("problem", "problems", self.counts),
            ("image left out", "images left out", self.left_out),
            ("other file not used", "other files not used", Counter(self.unused)),
        )
        for one, many, counts in parts:
            if total := sum(counts.values()):
                kinds = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
                text += f", {total:,} {many if total > 1 else one} ({kinds})"
        return text

    def lines(self, limit: int = 20) -> list[str]:
        """The first problems as plain text lines `file:line: kind: message`."""
        rows = [
            f"{row.file}{f':{row.line}' if row.line else ''}: {row.kind}{f': {row.message}' if row.message else ''}"
            for row in self.problems[:limit]
        ]
        rest = sum(self.counts.values()) - len(rows)
        return rows + ([f"... and {rest:,} more"] if rest else [])

    def print_table(self, limit: int = 20) -> None:
        """Print the summary line and, if there are problems, a table of the first `limit` and the count per kind."""
        from eyas.log import LOGGER, print_table

        LOGGER.info(self.summary())
        for note in self.notes:
            LOGGER.info("%s: %s.", self.split, note)
        for doubt in self.doubts:
            LOGGER.warning("%s: %s.", self.split, doubt)
        for reason, names in self.unused_names.items():
            if not reason.startswith(EXPECTED):
                LOGGER.info("%s: %s %s, such as %s", self.split, reason, f"{self.unused[reason]:,}", names[0])
        if not self.counts:
            return
        rows: list[list[object]] = [[row.file, row.line or "", row.kind, row.message] for row in self.problems[:limit]]
        rest = sum(self.counts.values()) - len(rows)
        if rest:
            rows.append([f"... and {rest:,} more in dataset_report.json", "", "", ""])
        print_table(f"Problems in {self.split} data", ["file", "line", "kind", "what"], rows, least=("what",))

    def write(self, path: str | Path, *others: DatasetReport) -> None:
        """Write this report, and those of other splits, to one JSON file: {"splits": {name: counts and problems}}."""
        content = {"splits": {report.split: report.to_dict() for report in (self, *others)}}
        text = json.dumps(content, indent=2, ensure_ascii=False)
        # Paths from the file system may hold lone surrogates (names that are not UTF-8).
        with replacing(Path(path)) as file:
            file.write(text.encode("utf-8", errors="backslashreplace"))
