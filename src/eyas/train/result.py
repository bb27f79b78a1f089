"""What a training returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eyas.metrics.detection import DetMetrics
from eyas.report import inline
from eyas.run.plan import Plan
from eyas.tables import html_table


@dataclass(frozen=True, repr=False)
class TrainResult:
    """Outcome of a training.

    Attributes:
        metrics: numbers of the best weights on the validation split, keys as in ``results.csv``.
        fitness: what chose them.
        best_epoch: 1-based epoch of the best weights.
        epochs: epochs that ran, over all resumes.
        save_dir: run folder.
        best: best weights.
        last: latest weights, with everything a resume needs.
        history: one row per epoch, as in ``results.csv``.
        plan: what the options meant for this run.
        model_class: class of the trained network.
        detection: the full metrics object of the best weights (``result.box.ap``, per-class values, curves).
    """

    metrics: dict[str, float]
    fitness: float | None
    best_epoch: int
    epochs: int
    save_dir: Path
    best: Path
    last: Path
    history: list[dict[str, float]]
    plan: Plan
    detection: DetMetrics | None = None
    model_class: type = object

    @property
    def box(self) -> object:
        """Per-class results of the best weights."""
        return self.detection.box if self.detection is not None else None

    def __repr__(self) -> str:
        """For example ``TrainResult(epoch 9 of 12, fitness 0.5123, runs/detect/train)``."""
        fitness = "no fitness" if self.fitness is None else f"fitness {self.fitness:.4f}"
        return f"TrainResult(epoch {self.best_epoch} of {self.epochs}, {fitness}, {self.save_dir})"

    def _repr_html_(self) -> str:
        """Numbers and curves; of the best weights, results per class and what they find in validation images."""
        rows = [("best epoch", f"{self.best_epoch} of {self.epochs}"), ("fitness", self.fitness)]
        rows += [(key.removeprefix("metrics/").removesuffix("(B)"), value) for key, value in self.metrics.items()]
        table = html_table(("", ""), [*rows, ("best weights", self.best), ("folder", self.save_dir)], "TrainResult")
        parts = [table, inline.curves(self.history, self.best_epoch or None)]
        if self.detection is not None:
            parts += [inline.class_table(self.detection), inline.predictions(self.detection)]
        return "".join(parts)
