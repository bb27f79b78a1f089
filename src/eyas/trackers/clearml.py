"""ClearML. Its own configuration says which server; ``CLEARML_PROJECT`` names the project, ``eyas`` without it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from eyas.trackers.base import Ended, Started, Tracker

if TYPE_CHECKING:
    from clearml import Task


class ClearML(Tracker):
    """One task there for each run here; its library is kept from listening in on others by itself."""

    name: ClassVar[str] = "clearml"
    module: ClassVar[str] = "clearml"
    extra: ClassVar[str] = "clearml"
    task: Task

    def started(self, run: Started) -> str:
        from clearml import Task

        self.task = Task.init(
            project_name=os.environ.get("CLEARML_PROJECT", "eyas"),
            task_name=run.name,
            continue_last_task=run.before or False,
            reuse_last_task_id=False,
            auto_connect_arg_parser=False,
            auto_connect_frameworks=False,
            auto_resource_monitoring=False,
        )
        self.task.set_initial_iteration(0)  # epochs are counted from the beginning also where a run goes on
        self.task.connect(dict(run.options), name="options")
        self.task.connect_configuration(dict(run.plan), name="plan")
        return str(self.task.id)

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        logger = self.task.get_logger()
        for name, value in values.items():
            group, _, series = name.rpartition("/")
            logger.report_scalar(title=group or series, series=series, value=value, iteration=number)

    def picture(self, epoch: int, path: Path) -> None:
        self.task.get_logger().report_image(title=path.stem, series="pictures", iteration=epoch, local_path=str(path))

    def best_model(self, path: Path) -> None:
        self.task.upload_artifact(name="best model", artifact_object=str(path), wait_on_upload=True)

    def ended(self, run: Ended) -> None:
        for name, value in run.metrics.items():
            self.task.get_logger().report_single_value(f"best/{name}", value)
        if run.failure:
            self.task.mark_failed(status_message=run.failure, force=True)
        self.task.close()
