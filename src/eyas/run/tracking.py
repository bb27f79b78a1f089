"""What a run remembers from epoch to epoch: running losses, the history table, the best epoch, patience."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyas import dist
from eyas.files import write_atomic


class TrainingDiverged(ValueError):
    """A loss became nan or infinite."""


class LossMeter:
    """Mean of each loss over an epoch; sums stay on the device until somebody asks."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.count = 0
        self.everyone: Tensor | None = None

    def update(self, items: dict[str, Tensor]) -> None:
        """Add one batch's items, scalars on the device."""
        values = torch.stack([v.detach().float().reshape(()) for v in items.values()])
        self.names = list(items)
        self.sums = values if self.sums is None else self.sums + values
        self.everyone = None
        self.count += 1

    def reduce(self) -> None:
        """Make the sums the mean over all processes: every process's items are made so that this is the truth."""
        if self.sums is not None:
            self.sums = dist.mean_over_ranks(self.sums)

    def gather(self) -> None:
        """Learn the sums of all processes, one row for each, for a checkpoint inside an epoch."""
        if self.sums is not None:
            self.everyone = torch.stack(dist.gather_all(self.sums.cpu()))

    def means(self) -> dict[str, float]:
        """Return the mean of each loss so far; waits for the device."""
        if self.sums is None:
            return {}
        return dict(zip(self.names, (self.sums / self.count).tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        sums = self.sums if self.everyone is None else self.everyone
        return {"names": self.names, "sums": sums, "count": self.count}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on counting where ``state_dict`` left off; other processes than those that counted take their mean."""
        sums: Tensor = state["sums"]  # of one row in files of earlier versions
        if sums.ndim == 2:
            sums = sums[dist.rank()] if len(sums) == dist.world_size() else sums.mean(0)
        self.names, self.sums, self.count = list(state["names"]), sums.to(device), state["count"]


class History:
    """One row of numbers per epoch; ``results.csv`` is always the whole of it."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def write(self, path: Path) -> None:
        """Write all rows; columns in the order in which they first appeared, cells of no value empty."""
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in self.rows:
            writer.writerow([format_cell(row[c]) if c in row else "" for c in columns])
        write_atomic(path, text.getvalue().encode())


def format_cell(value: float) -> str:
    """Six significant digits, whole numbers without a point."""
    return f"{value:.6g}"
