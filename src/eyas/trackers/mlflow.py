"""MLflow. ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` say where to, as its library reads them.

Its client is used, and not its module: no run of the user's own becomes another one, and none stays open.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from eyas.trackers.base import Ended, Started, Tracker, flat

if TYPE_CHECKING:
    from mlflow import MlflowClient


class MLflow(Tracker):
    """One run there for each run here, also where it goes on in another process."""

    name: ClassVar[str] = "mlflow"
    module: ClassVar[str] = "mlflow"
    extra: ClassVar[str] = "mlflow"
    client: MlflowClient
    id: str

    def started(self, run: Started) -> str:
        from mlflow import MlflowClient

        self.client = MlflowClient()
        if run.before:
            self.client.update_run(run.before, status="RUNNING")
            self.id = run.before
        else:
            called = os.environ.get("MLFLOW_EXPERIMENT_NAME", "eyas")
            known = self.client.get_experiment_by_name(called)
            experiment = known.experiment_id if known else self.client.create_experiment(called)
            self.id = self.client.create_run(experiment, run_name=run.name).info.run_id
            for name, value in flat(run.options).items():
                self.client.log_param(self.id, name, value)
            self.client.log_dict(self.id, dict(run.plan), "plan.json")
        return self.id

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(allowed(name), value, now, number) for name, value in values.items()]
        self.client.log_batch(self.id, metrics=metrics)

    def picture(self, epoch: int, path: Path) -> None:
        self.client.log_artifact(self.id, str(path), "pictures")

    def best_model(self, path: Path) -> None:
        self.client.log_artifact(self.id, str(path), "weights")

    def ended(self, run: Ended) -> None:
        for name, value in run.metrics.items():
            self.client.log_metric(self.id, allowed(f"best/{name}"), value, step=run.best_epoch)
        if run.failure:
            self.client.set_tag(self.id, "failure", run.failure)
        self.client.set_terminated(self.id, "FAILED" if run.failure else "FINISHED")


def allowed(name: str) -> str:
    """Return a metric's name as MLflow takes it: without brackets."""
    return name.replace("(", "_").replace(")", "").replace("[", "_").replace("]", "")
