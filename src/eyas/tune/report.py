"""What a study has found: a table of its trials, the best options as a file, a picture of each option."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from eyas.callbacks.criterion import Criterion
from eyas.config import TrainOptions
from eyas.files import write_atomic
from eyas.log import LOGGER, command, print_table, warn
from eyas.plot.search import save_search_picture
from eyas.tune.space import Space, trial_options

if TYPE_CHECKING:
    from optuna import Study

SHOWN = 10
"""Rows of the table that is printed; ``trials.csv`` has all."""


class Question(Protocol):
    """What a report must know of a search; said in words at `eyas.tune.study.Search`."""

    @property
    def options(self) -> TrainOptions: ...
    @property
    def space(self) -> Space: ...
    @property
    def metric(self) -> str: ...
    @property
    def criterion(self) -> Criterion: ...
    @property
    def file(self) -> Path: ...
    @property
    def folder(self) -> Path: ...


@dataclass(frozen=True)
class Row:
    """A trial.

    Attributes:
        number: in the order of beginning, from 0 on.
        state: ``complete``, ``pruned`` (given up), ``failed``, ``stopped`` (the next call goes on with it),
            ``running``, or ``lost`` (ended with its process, and does not count).
        value: of the metric; of a trial that was given up its latest one, None without any.
        epochs: that it trained, 0 if that is not known.
        seed: of the training.
        values: of the options that are searched.
        error: why it failed.
    """

    number: int
    state: str
    value: float | None
    epochs: int
    seed: int
    values: Mapping[str, Any]
    error: str = ""


def rows_of(study: Study) -> list[Row]:
    """Return the trials of a study in their order."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        known, state = trial.user_attrs, trial.state.name.lower()
        if state == "running" and "goes_on" in known:
            state = "stopped"
        elif state == "fail":
            state = "failed" if "error" in known else "lost"
        value = trial.value if state == "complete" else trial.intermediate_values.get(trial.last_step or 0)
        row = Row(trial.number, state, value, known.get("epochs", 0), known.get("seed", 0), known.get("values", {}))
        rows.append(row if state != "failed" else Row(**vars(row) | {"error": known["error"]}))
    return rows


def best_first(rows: Sequence[Row], criterion: Criterion) -> list[Row]:
    """Return complete trials from the best to the worst, then the others in their order; of equals the first."""

    def key(row: Row) -> tuple[bool, float]:
        complete = row.state == "complete" and row.value is not None
        return not complete, -criterion.score(row.value) if complete and row.value is not None else 0.0

    return sorted(rows, key=key)


def told(row: Row) -> str:
    """Return what came of a trial, in one line."""
    value = "" if row.value is None else f", {row.value:.4f}"
    return f"trial {row.number}: {row.state}{value}{f' ({row.error})' if row.error else ''}"


def write_report(asked: Question, rows: Sequence[Row]) -> Row | None:
    """Print the best trials, write all to ``trials.csv``, the best options to ``best.yaml``; returns the best."""
    ranked = best_first(rows, asked.criterion)
    asked.folder.mkdir(parents=True, exist_ok=True)
    write_csv(asked.folder / "trials.csv", rows, asked)
    best = ranked[0] if ranked and ranked[0].state == "complete" else None
    if best is None:
        warn(f"no trial came to an end: {asked.folder / 'trials.csv'} says why.")
        return None
    write_atomic(asked.folder / "best.yaml", best_yaml(asked, best).encode())
    complete = [row for row in rows if row.state == "complete" and row.value is not None]
    save_search_picture(
        asked.folder / "options.png",
        values=[row.value if row.value is not None else math.nan for row in complete],
        options={name: [row.values[name] for row in complete] for name in asked.space},
        log=[name for name, values in asked.space.items() if values.log],
        metric=asked.metric,
        best=[row.number for row in complete].index(best.number),
    )
    if LOGGER.isEnabledFor(20):
        header = ["trial", "state", asked.metric, "epochs", "seed", *asked.space]
        print_table("", header, [cells(row, asked.space) for row in ranked[:SHOWN]], least=("seed", "epochs"))
    again = command("train", f"cfg={asked.folder / 'best.yaml'}")
    LOGGER.info("best: trial %d; train it longer with `%s`", best.number, again)
    return best


def cells(row: Row, space: Space) -> list[object]:
    """Return a row as it is printed."""
    value = "" if row.value is None else f"{row.value:.4f}"
    own = [short(row.values.get(name, "")) for name in space]
    return [row.number, row.state, value, row.epochs or "", row.seed, *own]


def short(value: object) -> str:
    """Return a value as people read it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_csv(path: Path, rows: Sequence[Row], asked: Question) -> None:
    """Write every trial with every digit."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["trial", "state", asked.metric, "epochs", "seed", *asked.space, "error"])
        for row in rows:
            own = [row.values.get(name, "") for name in asked.space]
            table.writerow([row.number, row.state, row.value, row.epochs, row.seed, *own, row.error])


def best_yaml(asked: Question, best: Row) -> str:
    """Return the options of a trial as a file for ``cfg=``: what was typed for all trials, and its own values."""
    options = trial_options(asked.options, best.values)
    typed = {name: value for name, value in options.to_dict().items() if options.is_typed(name)}
    head = f"# Trial {best.number} of {asked.file}: {asked.criterion} {best.value:.6g}, seed {best.seed}.\n"
    return head + yaml.safe_dump(typed, sort_keys=False, allow_unicode=True)
