"""How much is learned with nothing typed: a grid of sets, batches, lengths and seeds, with means and spreads.

    python benchmarks/learn.py out=FILE [against=FILE] [sets=letters,coins] [models=yolo26n] [batches=8,16,64,128]
        [epochs=5,20,50] [seeds=0,1,2] [jobs=2] [root=FOLDER] [bccd=YAML] [OPTION=VALUE ...]

Every run has one thread and appends a line of JSON to `out`; runs that it holds already are not made again, so a grid
that was cut off goes on. `against` is such a file of before: the table then also shows differences. Any other
`OPTION=VALUE` is typed into every run, to measure a choice against the default.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

SIZES = {"digits": 128, "letters": 128, "coins": 128, "bccd": 192}  # px
GRID = {
    "sets": "digits,letters,coins",
    "models": "yolo26n",
    "batches": "8,16,64,128",
    "epochs": "5,20,50",
    "seeds": "0,1,2",
}
METRIC = "metrics/mAP50-95(B)"
Cell = tuple[str, str, int, int]  # model, set, batch, epochs
Key = tuple[str, str, int, int, int]  # and a seed


def main(arguments: list[str]) -> None:
    """Run what is missing of a grid and print its table."""
    given = dict(argument.split("=", 1) for argument in arguments)
    out = Path(given.pop("out"))
    before = given.pop("against", None)
    jobs, root = int(given.pop("jobs", "2")), Path(given.pop("root", tempfile.gettempdir())) / "eyas-learn"
    bccd = given.pop("bccd", None)
    sets, models, batches, epochs, seeds = (given.pop(name, usual).split(",") for name, usual in GRID.items())
    yamls = {name: data_of(name, root, bccd) for name in sets}
    keys = [
        (model, name, int(batch), int(length), int(seed))
        for length, seed, model, name, batch in itertools.product(epochs, seeds, models, sets, batches)
    ]
    refuse_other_options(rows_of(out), given, out)
    done = {key_of(row) for row in rows_of(out)}
    missing = [key for key in keys if key not in done]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(train, key, yamls[key[1]], root, given): key for key in missing}
        for number, future in enumerate(as_completed(waiting), 1):
            row = future.result()
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(
                f"{number} of {len(missing)}: {waiting[future]} {row[METRIC]:.4f} in {row['seconds']:.0f} s", flush=True
            )
    print_table(rows_of(out), rows_of(Path(before)) if before else [])


def refuse_other_options(rows: list[dict[str, object]], typed: dict[str, str], out: Path) -> None:
    """Refuse to mix runs with other options than `typed` into one file: their cells would be one in the table."""
    others = [row["typed"] for row in rows if row["typed"] != typed]
    if others:
        raise SystemExit(
            f"{out} holds runs with {others[0] or 'nothing'} typed, not {typed or 'nothing'}: name another"
        )


def data_of(name: str, root: Path, bccd: str | None) -> str:
    """Return what `data=` means this set; the two of `sets.py` are made under `root`."""
    if name == "bccd":
        assert bccd is not None, "sets=bccd needs bccd=PATH of its YAML"
        return bccd
    if name == "digits":
        return name
    import sets

    return str(sets.ensure(name, root))


def train(key: Key, data: str, root: Path, typed: dict[str, str]) -> dict[str, object]:
    """Train once, in this process, with one thread."""
    import torch

    from eyas.config.resolve import parse_cli
    from eyas.families import family_of
    from eyas.models import model_table

    torch.set_num_threads(1)
    model, name, batch, epochs, seed = key
    options = {"model": model, "data": data, "imgsz": SIZES[name], "batch": batch, "epochs": epochs, "seed": seed}
    quiet = {"workers": 0, "cache": "ram", "plots": False, "verbose": False, "save": False, "exist_ok": True}
    quiet |= {"project": str(root / "runs"), "name": str(os.getpid()), "val_every": max(epochs // 10, 1)}
    began = time.monotonic()
    result = family_of(model_table(model)).trainer(overrides=options | quiet | parse_cli(typed)).train()
    best = max(result.history, key=lambda row: row.get(METRIC, -1.0))
    return {
        **options,
        "data": name,
        "typed": typed,
        "updates": result.plan.updates,
        "seconds": round(time.monotonic() - began, 1),
        METRIC: best[METRIC],
        "metrics/mAP50(B)": best["metrics/mAP50(B)"],
        "last": result.history[-1][METRIC],
        "epoch": best["epoch"],
    }


def rows_of(path: Path) -> list[dict[str, object]]:
    """Return the rows of a file; none if there is no such file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def key_of(row: dict[str, object]) -> Key:
    """Return which run of the grid a row is."""
    return tuple(row[name] for name in ("model", "data", "batch", "epochs", "seed"))  # type: ignore[return-value]


def by_cell(rows: list[dict[str, object]]) -> dict[Cell, list[float]]:
    """Return the results of every cell, over its seeds."""
    cells: dict[Cell, list[float]] = {}
    for row in rows:
        cells.setdefault(key_of(row)[:4], []).append(float(row[METRIC]))  # type: ignore[arg-type]
    return cells


def print_table(rows: list[dict[str, object]], before: list[dict[str, object]]) -> None:
    """Print mean and spread of every cell, and what has changed."""
    earlier = by_cell(before)
    print(f"\n| model | set | batch | epochs | mAP50-95 | spread | seeds |{' before | change |' if before else ''}")
    print("|---|---|---|---|---|---|---|" + ("---|---|" if before else ""))
    for cell, values in sorted(by_cell(rows).items()):
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        line = f"| {' | '.join(map(str, cell))} | {statistics.fmean(values):.3f} | {spread:.3f} | {len(values)} |"
        if cell in earlier:
            was = statistics.fmean(earlier[cell])
            line += f" {was:.3f} | {statistics.fmean(values) - was:+.3f} |"
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
