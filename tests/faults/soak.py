"""A long training of tiny epochs: what it holds of the machine at its end is what it held after the first of them.

    python tests/faults/soak.py --epochs 300

Prints memory, descriptors, threads, processes and shared memory in tenths of the run; the exit code is 1 if any grew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "helpers"), str(HERE.parents[1] / "src")]

import small_yolo  # noqa: E402
from eyas import YOLO, Callback  # noqa: E402
from eyas.data.digits import ensure_digits  # noqa: E402
from eyas.tables import format_table  # noqa: E402

COLUMNS = ("epoch", "memory, MiB", "descriptors", "threads", "processes", "shared memory, MiB")
MAY_GROW = 24.0  # MiB from the second tenth on: allocators keep a little more than they were asked for


def held() -> list[float]:
    """Return what this process and its children hold now, in the order of `COLUMNS`."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [
        int(status["VmRSS"].split()[0]) / 1024,
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        len(children),
        shutil.disk_usage("/dev/shm").used / 2**20,
    ]


class Notes(Callback):
    """Notes what is held after each epoch."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []

    def on_fit_epoch_end(self, trainer: Any) -> None:
        self.rows.append(held())


def grown(rows: list[list[float]]) -> list[str]:
    """Return what is more at the end than in the second tenth."""
    early, late = rows[len(rows) // 10 : len(rows) // 5], rows[-len(rows) // 10 :]
    most = [max(row[i] for row in early) + (MAY_GROW if i in (0, 4) else 0) for i in range(len(COLUMNS) - 1)]
    return [COLUMNS[i + 1] for i, limit in enumerate(most) if min(row[i] for row in late) > limit]


def main() -> int:
    """Train, print the table, and return 1 if something grew."""
    parser = argparse.ArgumentParser(description="A long training of tiny epochs.")
    parser.add_argument("--epochs", type=int, default=300)
    asked = parser.parse_args()
    notes = Notes()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        model = Path(name) / "model.yaml"
        model.write_text(yaml.safe_dump(small_yolo.few_layers()))
        options = {
            "imgsz": 32,
            "batch": 8,
            "fraction": 0.25,
            "workers": 2,
            "device": "cpu",
            "save_every": 3,
            "patience": 0,
        }
        YOLO(model).train(
            data=str(ensure_digits("tiny")), epochs=asked.epochs, save_dir=f"{name}/run", callbacks=[notes],
            plots=False, verbose=False, **options,
        )  # fmt: skip
    every = max(len(notes.rows) // 10, 1)
    rows = [[i + 1, *(round(value, 1) for value in row)] for i, row in enumerate(notes.rows) if (i + 1) % every == 0]
    print("\n".join(format_table(COLUMNS, rows)))
    found = grown(notes.rows)
    print(f"grown: {', '.join(found) or 'nothing'}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
