"""JSON lines: ``events.jsonl`` in the run folder, one event a line, for programs that follow a run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

from eyas.trackers.base import Ended, Started, Tracker

FILE = "events.jsonl"


class JsonLines(Tracker):
    """Appends; a run that goes on adds to what is there, and numbers of an epoch that is trained again come last."""

    name: ClassVar[str] = "jsonl"

    def started(self, run: Started) -> str:
        self.path = run.folder / FILE
        if run.epoch == 0 and not run.before:
            self.path.unlink(missing_ok=True)  # of an earlier run in this folder (exist_ok)
        self.write("started", name=run.name, epoch=run.epoch, options=run.options, plan=run.plan)
        return FILE

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        self.write("epoch", epoch=number, values=values)

    def picture(self, epoch: int, path: Path) -> None:
        self.write("picture", epoch=epoch, path=path.name)

    def best_model(self, path: Path) -> None:
        self.write("best_model", path=str(path.relative_to(self.path.parent)))

    def ended(self, run: Ended) -> None:
        self.write("ended", **asdict(run))

    def write(self, event: str, **values: object) -> None:
        """Append a line."""
        line = json.dumps({"event": event, "at": round(time.time(), 3), **values}, default=str)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
