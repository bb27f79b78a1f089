"""What marking areas to ignore saves: `digits` with a third of its training labels removed.

    python benchmarks/ignored.py out=FILE [share=0.333] [epochs=7] [imgsz=96] [jobs=2] [root=FOLDER]
        [size=tiny] [OPTION=VALUE ...]

Three trainings of equal length and seed, validated on the same complete scenes: with all labels; with a share of them
removed, which teaches that these objects are background; with the places of those removed marked as areas to ignore.
Each has one thread, appends a line of JSON to `out`, and is not made again where that holds it already.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

FORMS = ("complete", "removed", "marked")
METRICS = ("metrics/mAP50(B)", "metrics/mAP50-95(B)")


def main(arguments: list[str]) -> None:
    """Train what is missing, and print the table."""
    given = dict(argument.split("=", 1) for argument in arguments)
    out, jobs = Path(given.pop("out")), int(given.pop("jobs", "2"))
    root = Path(given.pop("root", tempfile.gettempdir())) / "eyas-ignored"
    share = float(given.pop("share", str(1 / 3)))
    size = given.pop("size", "default")
    typed = {"epochs": "7", "imgsz": "96", "batch": "8", "seed": "0", **given}
    from eyas.data.digits import ensure_digits

    digits = ensure_digits(size).parent
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    missing = [form for form in FORMS if form not in {row["form"] for row in rows}]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        sets = {form: prepare(form, digits, root, share) for form in missing}
        for row in pool.map(partial(train, root=root, typed=typed), missing, [str(sets[form]) for form in missing]):
            rows.append(row)
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{row['form']}: {row[METRICS[0]]:.4f} in {row['seconds']:.0f} s", flush=True)
    print(table(rows))


def prepare(form: str, digits: Path, root: Path, share: float) -> Path:
    """Make the data set of a form, and return its YAML.

    Which labels go is drawn for every row with one seed, so that `removed` and `marked` lack the same.
    """
    folder = root / form
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(digits, folder)
    if form != "complete":
        rng = np.random.default_rng(0)
        areas = folder / "ignored" / "train"
        areas.mkdir(parents=True)
        for file in sorted((folder / "labels" / "train").glob("*.txt")):
            lines = file.read_text().splitlines()
            gone = rng.random(len(lines)) < share
            file.write_text("".join(f"{line}\n" for line, away in zip(lines, gone, strict=True) if not away))
            if form == "marked" and gone.any():
                boxes = [line.split(maxsplit=1)[1] for line, away in zip(lines, gone, strict=True) if away]
                (areas / file.name).write_text("".join(f"-1 {box}\n" for box in boxes))
    return folder / "digits.yaml"


def train(form: str, data: str, root: Path, typed: dict[str, str]) -> dict[str, object]:
    """Train once, in this process, with one thread."""
    import torch

    from eyas import DetectionTrainer
    from eyas.config.resolve import parse_cli

    torch.set_num_threads(1)
    quiet = {"workers": 0, "plots": False, "verbose": False, "save": False, "exist_ok": True, "val_every": 100}
    quiet |= {"model": "yolo26n", "data": data, "device": "cpu", "project": str(root / "runs"), "name": form}
    result = DetectionTrainer(overrides=quiet | parse_cli(typed)).train()
    last = result.history[-1]
    return {"form": form, "typed": typed, "seconds": last["time"], **{name: last[name] for name in METRICS}}


def table(rows: list[dict[str, object]]) -> str:
    """Return the rows as a table, with what each lacks of the complete labels."""
    by_form = {str(row["form"]): [float(row[name]) for name in METRICS] for row in rows}  # type: ignore[arg-type]
    lines = ["| labels | mAP50 | beside all labels | mAP50-95 | beside all labels |", "|---|---|---|---|---|"]
    for form in FORMS:
        fifty, mean = by_form[form]
        less, lesser = fifty - by_form["complete"][0], mean - by_form["complete"][1]
        lines.append(f"| {form} | {fifty:.3f} | {less:+.3f} | {mean:.3f} | {lesser:+.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
