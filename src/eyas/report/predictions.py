"""What each validation found, kept for later: ``predictions/`` in the run folder, from which `eyas best` chooses.

What: one file for each epoch that was validated, of a few MB at most, and one with the ground truth.
When: after the validation, in the main process; whole or not at all.
Default: on; ``save_predictions=False`` leaves them out.
Hazards: none for the run, which goes on where a file cannot be written; 300 epochs on COCO take about a gigabyte.
"""

from __future__ import annotations

from eyas.callbacks.base import Callback
from eyas.metrics.detection import DetMetrics
from eyas.metrics.stored import FOLDER, write_epoch
from eyas.report.attempts import Attempts
from eyas.run.protocol import Run


class Predictions(Callback):
    """Keeps what each validation found."""

    on = "main"

    def __init__(self) -> None:
        self.attempt = Attempts(f"{FOLDER}/ could not be written", patience=10)

    def effects(self) -> dict[str, object]:
        """Return that it writes."""
        return {"save_predictions": True}

    def on_val_end(self, trainer: Run) -> None:
        metrics = getattr(trainer.validator, "metrics", None)  # a user's validator may have none, or of another kind
        if isinstance(metrics, DetMetrics) and metrics.stats:
            self.attempt(lambda: write_epoch(trainer.save_dir / FOLDER, trainer.epoch + 1, metrics))
