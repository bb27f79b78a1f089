"""The events of a training, sent to trackers.

What: options, plan, every epoch's numbers, pictures, the end and the best model go to TensorBoard, Weights & Biases,
MLflow, ClearML, Comet, JSON lines, or a reader of yours.
When: before the first epoch, after every epoch, at the end; never between two batches.
Default: none; ``loggers=[...]`` names them.
Hazards: a tracker that waits for its server keeps the run waiting; one that fails is said once, and the run goes on.
"""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.callbacks.base import StockCallback
from eyas.files import write_atomic
from eyas.report.attempts import Attempts
from eyas.run.protocol import Run
from eyas.trackers.base import Ended, Started, Tracker
from eyas.trackers.registry import tracker_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from eyas.config import TrainOptions

NAMES_FILE = "trackers.json"  # how a run is called where it was sent to, for the process that goes on with it
PICTURES = (".jpg", ".png")


class Trackers(StockCallback):
    """Send the events of a run to trackers.

    Args:
        *trackers: names of ``eyas.trackers.TRACKERS``, and ``Tracker`` objects of your own.

    Raises:
        ValueError: no tracker of that name, or one given twice.
        ModuleNotFoundError: its package is not installed.
    """

    options = ("loggers",)
    on = "main"

    def __init__(self, *trackers: str | Tracker) -> None:
        if not trackers:
            raise ValueError('Trackers needs at least one tracker, for example Trackers("tensorboard").')
        self.trackers = [tracker_named(tracker) for tracker in trackers]
        names = [tracker.name for tracker in self.trackers]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"loggers names {', '.join(sorted(twice))} twice.")
        self.attempts = {name: Attempts(f"nothing is sent to {name}") for name in names}
        self.sent: dict[str, float] = {}  # picture -> when it was last changed
        self.epochs = 0
        self.open = False

    @classmethod
    def from_options(cls, options: TrainOptions) -> Trackers | None:
        return cls(*options.loggers) if options.loggers else None

    def on_train_start(self, trainer: Run) -> None:
        self.open = True
        self.sent = {str(path): path.stat().st_mtime for path in pictures(trainer.save_dir)}
        file = trainer.save_dir / NAMES_FILE
        known = known_names(file) if trainer.resume_from is not None else {}
        options, plan = trainer.args.to_dict(), trainer.plan.to_dict()
        for tracker in self.trackers:
            name, attempt = tracker.name, self.attempts[tracker.name]
            begun = Started(
                trainer.save_dir.name, trainer.save_dir, options, plan, trainer.start_epoch, known.get(name, "")
            )
            if not attempt(partial(self.start, tracker, begun, known)):
                attempt.give_up()
        if known := {name: called for name, called in known.items() if called}:
            write_atomic(file, json.dumps(known).encode())

    def start(self, tracker: Tracker, begun: Started, known: dict[str, str]) -> None:
        """Let one tracker begin, and note what the run is called there."""
        known[tracker.name] = tracker.started(begun)

    def on_fit_epoch_end(self, trainer: Run) -> None:
        row = trainer.history.rows[-1]
        values = {key: value for key, value in row.items() if key != "epoch" and math.isfinite(value)}
        self.epochs += 1
        self.each(lambda tracker: tracker.epoch(trainer.epoch + 1, values))
        self.send_pictures(trainer)

    def on_train_end(self, trainer: Run) -> None:
        self.send_pictures(trainer)
        if trainer.best_epoch and trainer.best.exists():
            self.each(lambda tracker: tracker.best_model(trainer.best))
        self.end(trainer, "")

    def on_exception(self, trainer: Run) -> None:
        error = trainer.exception
        self.end(trainer, f"{type(error).__name__}: {error}" if error is not None else "stopped")

    def end(self, trainer: Run, failure: str) -> None:
        """Close every tracker, once."""
        if self.open:
            self.open = False
            over = Ended(failure, len(trainer.history.rows), trainer.best_epoch, {} if failure else trainer.metrics)
            self.each(lambda tracker: tracker.ended(over))

    def send_pictures(self, trainer: Run) -> None:
        """Send every picture that has come into the run folder, or was drawn anew."""
        for path in pictures(trainer.save_dir):
            changed = path.stat().st_mtime
            if self.sent.get(str(path)) != changed:
                self.sent[str(path)] = changed
                self.each(lambda tracker, path=path: tracker.picture(trainer.epoch + 1, path))  # type: ignore[misc]

    def each(self, tell: Callable[[Tracker], object]) -> None:
        """Tell every tracker, as long as it works."""
        for tracker in self.trackers:
            self.attempts[tracker.name](partial(tell, tracker))

    def describe(self, trainer: Run) -> dict[str, object]:
        return {"loggers": ", ".join(tracker.name for tracker in self.trackers)}

    def witness(self, trainer: Run) -> dict[str, object]:
        sent = f"{self.epochs} epoch{'s' * (self.epochs != 1)} sent" if self.epochs else "knows that the run has begun"
        state = {name: attempt.failure or sent for name, attempt in self.attempts.items()}
        return {"loggers": state} if self.open or self.epochs else {}


def pictures(folder: Path) -> list[Path]:
    """Return the pictures that lie in a run folder."""
    return sorted(path for path in folder.iterdir() if path.suffix in PICTURES)


def known_names(file: Path) -> dict[str, str]:
    """Return what a run is called where it was sent to earlier; nothing where that cannot be read any more."""
    try:
        return {str(name): str(called) for name, called in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}
