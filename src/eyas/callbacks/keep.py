"""The weights of the k best epochs.

What: keeps ``weights/kept<epoch>.pt`` of the ``keep`` epochs with the best fitness so far; others are deleted.
When: after each validation, beside ``best.pt``, which is one of them by another name.
Default: 0, only the best epoch's weights are kept.
Hazards: each file is as large as ``best.pt``. What `eyas best` chooses by another metric may not be among them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyas import dist
from eyas.callbacks.base import StockCallback
from eyas.run.protocol import Run

if TYPE_CHECKING:
    from eyas.config import TrainOptions

STEM = "kept"


class KeepBest(StockCallback):
    """Keep the weights of the best epochs.

    Args:
        count: epochs whose weights are kept, at least 1.
    """

    options = ("keep",)

    def __init__(self, count: int) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"KeepBest: {count!r} must be a whole number of epochs, at least 1.")
        self.count = count
        self.kept: dict[int, float] = {}  # 1-based epoch -> fitness
        self.dropped: list[Path] = []
        self.asked = False

    @classmethod
    def from_options(cls, options: TrainOptions) -> KeepBest | None:
        return cls(options.keep) if options.keep else None

    def on_val_end(self, trainer: Run) -> None:
        self.asked = True
        if trainer.fitness is None:
            return
        self.kept[trainer.epoch + 1] = trainer.fitness
        for epoch in self.ranked()[self.count :]:
            del self.kept[epoch]
            if trainer.best_files.pop(f"{STEM}{epoch}", 0):
                self.dropped.append(trainer.wdir / f"{STEM}{epoch}.pt")
        if trainer.epoch + 1 in self.kept:
            trainer.best_files[f"{STEM}{trainer.epoch + 1}"] = trainer.epoch + 1

    def on_model_save(self, trainer: Run) -> None:
        """Delete what is not kept any more: now last.pt does not name it either."""
        if dist.is_main():
            for path in self.dropped:
                path.unlink(missing_ok=True)
        self.dropped.clear()

    def ranked(self) -> list[int]:
        """Return the epochs that are kept, the best first; among equals the earlier."""
        return sorted(self.kept, key=lambda epoch: (-self.kept[epoch], epoch))

    def describe(self, trainer: Run) -> dict[str, object]:
        return {"keep": f"weights of the {self.count} best epochs"}

    def witness(self, trainer: Run) -> dict[str, object]:
        return {"keep": self.ranked() or "no epoch with a finite fitness has been seen yet"} if self.asked else {}

    def state_dict(self) -> dict[str, Any]:
        return {"kept": {str(epoch): fitness for epoch, fitness in self.kept.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back which epochs are kept."""
        self.kept = {int(epoch): float(fitness) for epoch, fitness in state["kept"].items()}
