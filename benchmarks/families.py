"""How long a step of each model takes here: the last column of docs/families.md.

    python benchmarks/families.py [OPTION=VALUE ...] [--models NAME,...] [--page FILE] [--write]

Every model that the page's table of costs names is measured as `bench.py --step --quick` does it, one after the other
in a process of its own; ``--write`` puts the medians into the page. Options are those of a training.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import HERE, QUICK, find_data, in_turns, options_of
from sides import Side, SideError
from spread import spreads

from eyas.log import print_table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "families.md"
USUAL = {"imgsz": "320", "batch": "4", "device": "cpu", "data": "digits", "workers": "0"}
COSTS, COLUMN = "| model | parameters | GFLOPs |", "a step here"
ROW = re.compile(r"^\| `([\w.-]+)`")
MEASURED = "step, ms"


def costs(page: str) -> list[int]:
    """Return the numbers of the lines of the table of costs, its two head lines first.

    Raises:
        ValueError: there is no such table.
    """
    lines = page.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith(COSTS)), None)
    if first is None:
        raise ValueError(f"no line begins with {COSTS!r}")
    return [i for i in range(first, len(lines)) if all(line.startswith("|") for line in lines[first : i + 1])]


def models(page: str) -> list[str]:
    """Return the first name of each row of the table of costs: others beside it cost the same."""
    lines = page.splitlines()
    return [found[1] for i in costs(page) if (found := ROW.match(lines[i]))]


def with_steps(page: str, steps: Mapping[str, float]) -> str:
    """Return the page with a last column of seconds of a step, where they were measured; others stay."""
    lines, table = page.splitlines(), costs(page)
    has = COLUMN in lines[table[0]]
    for i in table:
        cells = lines[i].strip("|").split("|")
        before = cells.pop() if has else "  "
        name = ROW.match(lines[i])
        if i == table[0]:
            cell = f" {COLUMN} "
        elif name is None:
            cell = "---"
        else:
            cell = f" {steps[name[1]] / 1000:.2f} s " if name[1] in steps else before
        lines[i] = f"|{'|'.join([*cells, cell])}|"
    return "\n".join(lines) + "\n"


def step_of(model: str, options: Mapping[str, str]) -> str | float:
    """Return the milliseconds of a step, the median of a few; a text if it could not be measured."""
    try:
        with Side(HERE) as side:
            request = {"part": "step", "batches": QUICK.batches, "epochs": QUICK.epochs}
            turns, warm = QUICK.turns["step"], QUICK.warm["step"]
            (rows,) = in_turns(
                [lambda: side.ask(options=dict(options) | {"model": model}, **request)], turns, warm, QUICK.limit
            )
            return spreads([row for turn in rows for row in turn])[MEASURED].median
    except SideError as error:
        return str(error)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write the page if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE", help=f"of the training; usual are {USUAL}")
    parser.add_argument("--models", help="names, separated by commas; else those of the page")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--write", action="store_true", help="put the seconds into the page")
    given = parser.parse_intermixed_args(arguments)
    page = given.page.read_text(encoding="utf-8")
    steps: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        options = USUAL | options_of(given.options)
        options["data"] = find_data(options["data"], Path(folder), int(options["imgsz"]))
        for model in given.models.split(",") if given.models else models(page):
            found = step_of(model, options)
            if isinstance(found, str):
                print(f"{model}: {found}")
            else:
                steps[model] = found
                print(f"{model}: {found:.0f} ms", flush=True)
    print_table("A step", ["model", "ms"], [[name, f"{ms:.0f}"] for name, ms in steps.items()])
    if given.write:
        given.page.write_text(with_steps(page, steps), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
