"""What people look at while a run goes on: the console, as a callback like any other."""

from __future__ import annotations

from typing import Any

import torch

from eyas import notebook
from eyas.callbacks.base import Callback
from eyas.report import overview
from eyas.report.console import RunConsole, Table
from eyas.report.panel import RunPanel
from eyas.run.protocol import Run


class ConsoleReport(Callback):
    """Prints the plan and the groups, a live line, a row per epoch, and where the results are."""

    on = "main"

    def __init__(self, enabled: bool = True) -> None:
        self.console = RunConsole(enabled=enabled)

    def effects(self) -> dict[str, object]:
        """Return whether it speaks."""
        return {"verbose": self.console.enabled}

    def on_train_start(self, trainer: Run) -> None:
        if self.console.enabled and (screen := notebook.screen()) is not None:
            self.console = RunPanel(screen)
        self.console.device = trainer.device
        self.console.start(
            self.header(trainer),
            [
                Table("Plan", overview.DECISION_HEADER, overview.decision_rows(trainer), overview.DECISION_LEAST),
                Table("Stages", overview.STAGE_HEADER, overview.stage_rows(trainer), overview.STAGE_LEAST),
                Table("Groups", overview.GROUP_HEADER, overview.group_rows(trainer), overview.GROUP_LEAST),
            ],
        )

    def header(self, trainer: Run) -> str:
        """One line: what trains on what, where, into which folder."""
        device = trainer.device.type
        place = (
            torch.cuda.get_device_name(trainer.device) if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
        )
        verb = f"Resuming at epoch {trainer.start_epoch + 1}" if trainer.resume_from else "Training"
        data = f"{trainer.args.data}, {trainer.plan.images} images at {trainer.args.imgsz} px"
        return f"{verb}: {trainer.args.model} on {data}, {place}, results in {trainer.save_dir}"

    def on_train_epoch_start(self, trainer: Run) -> None:
        if header := trainer.progress_string():
            self.console.message(header)
        self.console.epoch_start(trainer.epoch, trainer.epochs, len(trainer.train_loader))

    def on_train_batch_end(self, trainer: Run) -> None:
        images, boxes = len(trainer.batch["img"]), len(trainer.batch["cls"])
        self.console.batch(trainer.step, trainer.running_losses, images, boxes)

    def on_fit_epoch_end(self, trainer: Run) -> None:
        self.console.draw(trainer.history.rows, trainer.best_epoch)
        self.console.epoch_end({k: v for k, v in trainer.history.rows[-1].items() if k != "time"})

    def on_train_end(self, trainer: Run) -> None:
        self.console.finish(self.ending(trainer))

    def ending(self, trainer: Run) -> list[str]:
        """Lines that say what was reached and where it lies."""
        minutes = trainer.elapsed() / 60
        epochs = trainer.epoch + 1
        lines = [f"{epochs} epoch{'s' * (epochs != 1)} in {minutes:.1f} minutes."]
        if trainer.best_fitness is not None:
            numbers = ", ".join(
                f"{k.removeprefix('metrics/').removesuffix('(B)')} {v:.4f}" for k, v in best_metrics(trainer).items()
            )
            lines.append(f"Best epoch {trainer.best_epoch}: {numbers}.")
            lines.append(f"Best weights: {trainer.best}")
        return [*lines, f"Everything else: {trainer.save_dir}"]

    def on_exception(self, trainer: Run) -> None:
        self.console.close()

    def teardown(self, trainer: Run) -> None:
        self.console.close()


def best_metrics(trainer: Run) -> dict[str, Any]:
    """Return the metrics of the final evaluation that have the prefix ``metrics/``."""
    return {key: value for key, value in trainer.metrics.items() if key.startswith("metrics/")}
