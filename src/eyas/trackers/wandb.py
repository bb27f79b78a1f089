"""Weights & Biases. Its library reads ``WANDB_PROJECT``, ``WANDB_ENTITY`` and ``WANDB_MODE=offline``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from eyas.trackers.base import Ended, Started, Tracker

if TYPE_CHECKING:
    import wandb


class WeightsAndBiases(Tracker):
    """One run there for each run here, also where it goes on in another process."""

    name: ClassVar[str] = "wandb"
    module: ClassVar[str] = "wandb"
    extra: ClassVar[str] = "wandb"
    run: wandb.Run

    def started(self, run: Started) -> str:
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "eyas"),
            name=run.name,
            dir=str(run.folder),
            id=run.before or None,
            resume="allow" if run.before else None,
            config={"options": dict(run.options), "plan": dict(run.plan)},
        )
        self.run.define_metric("*", step_metric="epoch")
        return str(self.run.id)

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        self.run.log({"epoch": number, **values})

    def picture(self, epoch: int, path: Path) -> None:
        import wandb

        self.run.log({"epoch": epoch, f"pictures/{path.stem}": wandb.Image(str(path))})

    def best_model(self, path: Path) -> None:
        import wandb

        artifact = wandb.Artifact(f"run-{self.run.id}-model", type="model")
        artifact.add_file(str(path), name=path.name)
        self.run.log_artifact(artifact, aliases=["best"])

    def ended(self, run: Ended) -> None:
        self.run.summary.update({f"best/{name}": value for name, value in run.metrics.items()})
        self.run.summary.update({"best_epoch": run.best_epoch, "failure": run.failure})
        self.run.finish(exit_code=1 if run.failure else 0)
