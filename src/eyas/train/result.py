"""What a training returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from eyas.metrics.detection import DetMetrics
from eyas.run.plan import Plan


@dataclass(frozen=True)
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
    detection: DetMetrics | None = field(repr=False, default=None)
    model_class: type = field(repr=False, default=object)

    @property
    def box(self) -> object:
        """Per-class results of the best weights."""
        return self.detection.box if self.detection is not None else None
