"""How fast is each part of a training, of one setting or of two in turns.

    python benchmarks/bench.py [OPTION=VALUE ...] [--parts step,data,...] [--step] [--quick] [out=FILE]
        [--against REV] [--with "OPTION=VALUE ..."]

Every number is a median over repetitions, with the smallest and the largest of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sides import Side, SideError
from spread import Rows, Spread, plain, ratios, spreads

import eyas
from eyas.log import print_table

USUAL = {"model": "yolo26n", "imgsz": "128", "batch": "16", "device": "cpu", "data": "digits"}
USUAL_PARTS = ("step", "data", "loop", "validation", "memory", "operators", "startup")
MORE_PARTS = ("loading",)
RANDOM_IMAGES = 320
HERE = Path(eyas.__file__).resolve().parents[1]

Ask = Callable[[], Rows]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Args:
        turns: of each part that count.
        warm: turns before them: they choose kernels, allocate memory, read files and, for matching, import SciPy.
        limit: seconds after which no further turn of a part begins; large models on a busy machine take long.
        batches: of a pass over the data path.
        epochs: of a training.
    """

    turns: dict[str, int]
    warm: dict[str, int]
    limit: float
    batches: int
    epochs: int


QUICK = Effort(
    turns={"step": 4, "data": 3, "validation": 2, "loading": 2},
    warm={"step": 1, "data": 1, "loading": 1},
    limit=40,
    batches=4,
    epochs=2,
)
FULL = Effort(
    turns={"step": 20, "data": 5, "loop": 2, "validation": 5, "loading": 5, "startup": 3},
    warm={"step": 2, "data": 1, "loading": 1, "validation": 1, "startup": 1},
    limit=300,
    batches=20,
    epochs=4,
)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; anything else than it may hold ends the program.

    The result has ``options`` {name: text}, ``parts``, ``effort``, ``out``, ``against`` and ``extra`` {name: text}.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE", help="of the training; out=FILE also writes JSON")
    parser.add_argument("--parts", default=",".join(USUAL_PARTS), help=f"of {', '.join(USUAL_PARTS + MORE_PARTS)}")
    parser.add_argument("--step", action="store_const", const="step", dest="parts", help="the step of the model alone")
    parser.add_argument("--quick", action="store_const", const=QUICK, default=FULL, dest="effort")
    parser.add_argument("--against", metavar="REV", help="a git revision to compare with")
    parser.add_argument("--with", default="", dest="extra", metavar="OPTIONS", help="to compare with what has none")
    given = parser.parse_intermixed_args(arguments)
    try:
        given.options = USUAL | options_of(given.options)
        given.extra = options_of(given.extra.split())
    except ValueError as error:
        parser.error(str(error))
    given.out = given.options.pop("out", None)
    given.parts = given.parts.split(",")
    if unknown := set(given.parts) - set(USUAL_PARTS + MORE_PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(USUAL_PARTS + MORE_PARTS)}")
    return given


def options_of(words: Sequence[str]) -> dict[str, str]:
    """Return words ``NAME=VALUE`` as a mapping.

    Raises:
        ValueError: a word is none.
    """
    for word in words:
        name, _, value = word.partition("=")
        if not (name.isidentifier() and value):
            raise ValueError(f"{word!r} is not OPTION=VALUE")
    return dict(word.split("=", 1) for word in words)


# -- data --------------------------------------------------------------------------------------------------------------
def find_data(name: str, folder: Path, imgsz: int) -> str:
    """Return what to train on; images of noise when ``digits`` cannot be made here."""
    if name == "digits":
        try:
            from eyas.data.digits import ensure_digits

            ensure_digits()
        except ImportError as error:
            print(f"{error}\nMeasuring on images of noise instead.")
            name = "random"
    return str(random_data(folder / "random", imgsz)) if name == "random" else name


def random_data(folder: Path, imgsz: int) -> Path:
    """Write images of noise with three boxes each and return their YAML; for a machine that cannot make ``digits``."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i in range(RANDOM_IMAGES):
        noise = rng.integers(0, 256, (imgsz // 8, imgsz // 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / f"{i}.jpg"), cv2.resize(noise, (imgsz, imgsz)))
        rows = (f"{rng.integers(10)} {x:.3f} {y:.3f} 0.2 0.2\n" for x, y in rng.uniform(0.15, 0.85, (3, 2)))
        (folder / "labels" / f"{i}.txt").write_text("".join(rows))
    yaml = folder / "random.yaml"
    yaml.write_text(f"train: images\nval: images\nnames: {[str(i) for i in range(10)]}\n")
    return yaml


# -- sides and turns ---------------------------------------------------------------------------------------------------
@contextmanager
def revision(name: str | None) -> Iterator[Path]:
    """Yield the folder that holds `eyas` as it is in a revision of git, or as it is here.

    Raises:
        SystemExit: git does not know the revision.
    """
    if name is None:
        yield HERE
        return
    with tempfile.TemporaryDirectory() as folder:
        root = HERE.parent
        packed = subprocess.run(["git", "-C", str(root), "archive", name, "src"], capture_output=True, check=False)
        if packed.returncode:
            raise SystemExit(f"--against {name}: {packed.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
        yield Path(folder) / "src"


def in_turns(asks: Sequence[Ask], turns: int, warm: int, limit: float) -> list[list[Rows]]:
    """Ask in turns (A B A B) and return, for each, its rows of every turn that counts; at least one does.

    Args:
        asks: measure once.
        turns: that count.
        warm: turns before those.
        limit: seconds after the first of those that count, after which no turn begins.
    """
    taken: list[list[Rows]] = [[] for _ in asks]
    began = time.monotonic()
    for turn in range(warm + turns):
        if turn <= warm:
            began = time.monotonic()
        elif time.monotonic() - began > limit:
            break
        for ask, own in zip(asks, taken, strict=True):
            rows = ask()
            if turn >= warm:
                own.append(rows)
    return taken


def summary(taken: Sequence[Sequence[Rows]]) -> dict[str, Any]:
    """Return the spreads of each side and, of two, their ratios: second / first."""
    found: dict[str, Any] = {"sides": [spreads([row for rows in own for row in rows]) for own in taken]}
    return found | ({"ratios": ratios(*taken)} if len(taken) == 2 else {})


def as_json(found: dict[str, Any]) -> dict[str, Any]:
    """Return a summary as plain values."""
    written: dict[str, Any] = {"sides": [plain(side) for side in found["sides"]]}
    return written | ({"ratios": plain(found["ratios"])} if "ratios" in found else {})


def report(title: str, found: dict[str, Any], names: Sequence[str]) -> None:
    """Print a summary as a table, with a column for each side."""
    sides: list[dict[str, Spread]] = found["sides"]
    compared: dict[str, Spread] = found.get("ratios", {})
    header = ["what", *names, *([f"{names[1]} / {names[0]}"] if len(names) == 2 else [])]
    rows: list[list[object]] = []
    for what in dict.fromkeys(what for side in sides for what in side):
        row = [what, *(str(side.get(what, "-")) for side in sides)]
        rows.append([*row, *([str(compared.get(what, "-"))] if len(names) == 2 else [])])
    print_table(f"\n{title}", header, rows)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write ``out``."""
    given = parse(arguments)
    effort: Effort = given.effort
    names = ["measured"]
    if given.against or given.extra:
        names = [given.against or "without", " ".join(f"{k}={v}" for k, v in given.extra.items()) or "now"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = given.options | {"data": find_data(given.options["data"], folder, int(given.options["imgsz"]))}
        sources = [stack.enter_context(revision(given.against)), HERE][: len(names)]
        sides = [stack.enter_context(Side(source)) for source in sources]
        settings = [options, options | given.extra][: len(names)]
        facts = given.options | sides[-1].machine
        print_table("Measured", ["what", "value"], [[name, str(value)] for name, value in facts.items()])
        result: dict[str, Any] = {"options": given.options, "machine": sides[-1].machine, "names": names, "parts": {}}
        for part in given.parts:
            request = {"part": part, "batches": effort.batches, "epochs": effort.epochs}
            asks = [partial(side.ask, options=own, **request) for side, own in zip(sides, settings, strict=True)]
            taken = in_turns(asks, effort.turns.get(part, 1), effort.warm.get(part, 0), effort.limit)
            found = summary(taken)
            report(part, found, names)
            result["parts"][part] = as_json(found)
            if given.out:
                Path(given.out).write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SideError as error:
        raise SystemExit(f"{error}") from None
