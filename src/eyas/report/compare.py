"""``eyas runs``: runs side by side, from the files in their folders; nothing is loaded, and no run is disturbed."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import yaml

from eyas.log import print_table
from eyas.names import did_you_mean
from eyas.report.charts import MOST_LINES, Line, Panel, chart, panels
from eyas.report.html import document, section, table
from eyas.tables import duration

DESCRIPTION, TABLE = "options.yaml", "results.csv"
MEASURE = "metrics/mAP50-95(B)"
SMALLER = ("val/", "train/")  # keys of losses, of which the smallest is the best
# Options that say where a run lies and how it is shown, not what it learns.
PLACES = frozenset(
    {"cfg", "exist_ok", "loggers", "name", "plots", "project", "report", "resume", "save_dir", "verbose"}
)
COLUMNS = frozenset({"model", "data", "epochs"})  # of the table anyway
CURVES = ("metrics/mAP50-95(B)", "metrics/mAP50(B)", "metrics/precision(B)", "metrics/recall(B)")


@dataclass(frozen=True)
class Record:
    """A run as its folder tells of it.

    Attributes:
        folder, name: where it lies, and how it differs from the others in that.
        options: as in ``options.yaml``.
        planned: epochs that it was to have, None where that is not known.
        rows: of ``results.csv``, numbers alone.
        when: seconds since 1970 of the last change.
    """

    folder: Path
    name: str
    options: Mapping[str, object]
    planned: int | None
    rows: list[dict[str, float]]
    when: float

    def best(self, key: str) -> tuple[float, int] | None:
        """Return the best value of a column and its epoch, the earlier of equals; None where it has none."""
        found = [(row[key], int(row["epoch"])) for row in self.rows if math.isfinite(row.get(key, math.nan))]
        sign = 1 if key.startswith(SMALLER) else -1
        return min(found, key=lambda pair: (sign * pair[0], pair[1])) if found else None

    @property
    def seconds(self) -> float | None:
        """How long it has trained, by its own clock."""
        return self.rows[-1].get("time") if self.rows else None


def compare(folders: Sequence[str], by: str = MEASURE, html: str | None = None) -> list[Record]:
    """Print a table of runs, the best first, and write a page of them if it has a path.

    Args:
        folders: of runs, or folders below which there are some.
        by: column of ``results.csv`` to judge by; its short name, such as ``mAP50``, will do.
        html: file to write.

    Raises:
        ValueError: there is no run there, or none has the column; names the nearest.
    """
    records = read_runs(folders)
    key = full_key(by, records)
    records.sort(key=lambda record: rank(record, key))
    header, rows = overview(records, key)
    print_table("", header, rows, least=(*reversed(header[7:]), "when", "time", "data", "model"))
    if html is not None:
        path = Path(html)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(records, key), encoding="utf-8", errors="backslashreplace")
        print(f"{path} compares them on one page.")
    return records


# -- reading -----------------------------------------------------------------------------------------------------------
def read_runs(folders: Sequence[str]) -> list[Record]:
    """Return the runs in and below folders, each once.

    Raises:
        ValueError: a folder is none, or there is no run.
    """
    missing = [folder for folder in folders if not Path(folder).is_dir()]
    if missing:
        raise ValueError(f"there is no folder {missing[0]}; `eyas runs` looks for runs in runs/, or in those you name.")
    found = sorted({path.parent.resolve() for folder in folders for path in Path(folder).rglob(DESCRIPTION)})
    if not found:
        raise ValueError(f"there is no run in {', '.join(folders)}: none of its folders holds an {DESCRIPTION}.")
    names = short_names(found)
    return [read_run(folder, name) for folder, name in zip(found, names, strict=True)]


def read_run(folder: Path, name: str) -> Record:
    """Return what one folder holds; what a run has not written yet is missing."""
    given = yaml.safe_load((folder / DESCRIPTION).read_text(encoding="utf-8"))
    file, plan = folder / TABLE, folder / "plan.json"
    planned = json.loads(plan.read_text(encoding="utf-8")).get("epochs") if plan.exists() else None
    rows = list(numbers(file)) if file.exists() else []
    changed = file if file.exists() else folder / DESCRIPTION
    options = given if isinstance(given, dict) else {}
    return Record(folder, name, options, planned, rows, changed.stat().st_mtime)


def numbers(file: Path) -> Iterator[dict[str, float]]:
    """Yield the rows of a table, without the cells that are no numbers."""
    with file.open(newline="", encoding="utf-8") as text:
        for cells in csv.DictReader(text):
            row = {}
            for key, cell in cells.items():
                try:
                    row[key] = float(cell)
                except (TypeError, ValueError):  # empty: not measured in this epoch
                    continue
            if "epoch" in row:
                yield row


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that differ."""
    for depth in range(1, max(len(folder.parts) for folder in folders)):
        names = [Path(*folder.parts[-depth:]).as_posix() for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def full_key(by: str, records: Sequence[Record]) -> str:
    """Return the column that a name stands for.

    Raises:
        ValueError: no run has it.
    """
    keys = dict.fromkeys(key for record in records for row in record.rows for key in row)
    short = {key.partition("/")[2].removesuffix("(B)") or key: key for key in keys} | {key: key for key in keys}
    if by not in short and by != MEASURE:  # runs that have measured nothing are listed all the same
        raise ValueError(f"by={by}: no run has such a column in its {TABLE}.{did_you_mean(by, short)}")
    return short.get(by, by)


# -- comparing ---------------------------------------------------------------------------------------------------------
def rank(record: Record, key: str) -> tuple[bool, float, str]:
    """Order of a run in the table: the best first, those without a value last."""
    best = record.best(key)
    value = 0.0 if best is None else best[0] if key.startswith(SMALLER) else -best[0]
    return best is None, value, record.name


def differing(records: Sequence[Record]) -> dict[str, list[str]]:
    """Return the options of which runs have different values, as texts, one for each run."""
    names = dict.fromkeys(name for record in records for name in record.options if name not in PLACES | COLUMNS)
    values = {name: [shown(record.options.get(name)) for record in records] for name in names}
    return {name: texts for name, texts in values.items() if len(set(texts)) > 1}


def shown(value: object) -> str:
    """Return a value of an option as it would be typed."""
    if value is None:
        return "auto"
    return str(value).lower() if isinstance(value, bool) else str(value)


def overview(records: Sequence[Record], key: str) -> tuple[list[str], list[list[object]]]:
    """Return header and rows of the table: what every run is, its best value, and the options that differ."""
    others = differing(records)
    measure = key.partition("/")[2].removesuffix("(B)") or key
    header = ["name", "model", "data", "epochs", measure, "when", "time", *others]
    rows: list[list[object]] = []
    for number, record in enumerate(records):
        best, done = record.best(key), int(record.rows[-1]["epoch"]) if record.rows else 0
        epochs = f"{done}/{record.planned}" if record.planned else str(done)
        rows.append([
            record.name,
            Path(shown(record.options.get("model"))).name,
            Path(shown(record.options.get("data"))).name,
            epochs,
            f"{best[0]:.4f} (epoch {best[1]})" if best else None,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(record.when)),
            duration(record.seconds) if record.seconds is not None else None,
            *(texts[number] for texts in others.values()),
        ])  # fmt: skip
    return header, rows


def page(records: Sequence[Record], key: str) -> str:
    """Return one page: the table, and a chart for each measure with a curve for each run."""
    header, rows = overview(records, key)
    keys = dict.fromkeys([key, *CURVES, *(k for record in records for row in record.rows for k in row)])
    drawn = [chart(overlaid(records, k)) for k in keys if k.partition("/")[0] in ("metrics", "val", "train")]
    more = f", curves of the first {MOST_LINES}" if len(records) > MOST_LINES else ""
    head = f"<h1>{len(records)} runs</h1><p class='soft'>The best by {escape(key)} first{more}.</p>"
    charts = f'<div class="charts">{"".join(drawn)}</div>' if any(drawn) else ""
    return document("Runs", head + section("Table", table(header, rows)) + section("Curves", charts))


def overlaid(records: Sequence[Record], key: str) -> Panel:
    """Return a chart of one column, a line for each run."""
    lines, unit = [], "value"
    for record in records:
        only = [{"epoch": row["epoch"], key: row[key]} for row in record.rows if key in row]
        for panel in panels(only):
            unit = panel.unit
            lines += [Line(record.name, line.x, line.y) for line in panel.lines]
    return Panel(key, unit, lines)
