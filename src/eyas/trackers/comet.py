"""Comet. ``COMET_API_KEY``, ``COMET_PROJECT_NAME`` and the rest of its configuration say where to.

``COMET_START_ONLINE=0`` keeps everything in files of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from eyas.trackers.base import Ended, Started, Tracker, flat

if TYPE_CHECKING:
    from comet_ml import CometExperiment


class Comet(Tracker):
    """One experiment there for each run here, also where it goes on in another process."""

    name: ClassVar[str] = "comet"
    module: ClassVar[str] = "comet_ml"
    extra: ClassVar[str] = "comet"
    experiment: CometExperiment

    def started(self, run: Started) -> str:
        import comet_ml

        self.experiment = comet_ml.start(experiment_key=run.before or None)
        self.experiment.set_name(run.name)
        self.experiment.log_parameters(flat(run.options), prefix="options")
        self.experiment.log_parameters(flat(run.plan), prefix="plan")
        return str(self.experiment.get_key())

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        self.experiment.log_metrics(dict(values), step=number, epoch=number)

    def picture(self, epoch: int, path: Path) -> None:
        self.experiment.log_image(str(path), name=path.stem, step=epoch)

    def best_model(self, path: Path) -> None:
        self.experiment.log_model("best", str(path))

    def ended(self, run: Ended) -> None:
        best = {f"best/{name}": value for name, value in run.metrics.items()}
        self.experiment.log_metrics(best, step=run.best_epoch)
        if run.failure:
            self.experiment.log_other("failure", run.failure)
        self.experiment.end()
