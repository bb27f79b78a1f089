"""The trackers that have a name. Another needs none: its object is given to ``Trackers`` instead."""

from __future__ import annotations

from collections.abc import Mapping

from eyas.names import did_you_mean
from eyas.trackers.base import Tracker
from eyas.trackers.clearml import ClearML
from eyas.trackers.comet import Comet
from eyas.trackers.jsonl import JsonLines
from eyas.trackers.mlflow import MLflow
from eyas.trackers.tensorboard import TensorBoard
from eyas.trackers.wandb import WeightsAndBiases

STOCK: tuple[type[Tracker], ...] = (TensorBoard, WeightsAndBiases, MLflow, ClearML, Comet, JsonLines)
TRACKERS: Mapping[str, type[Tracker]] = {tracker.name: tracker for tracker in STOCK}


def tracker_named(tracker: str | Tracker) -> Tracker:
    """Return the tracker of a name, or a tracker itself.

    Raises:
        ValueError: no tracker has the name.
        ModuleNotFoundError: its package is not installed.
    """
    if not isinstance(tracker, str):
        return tracker
    if tracker.lower() not in TRACKERS:
        hint = did_you_mean(tracker, TRACKERS)
        raise ValueError(f"loggers: there is no tracker {tracker!r}.{hint} There are {', '.join(TRACKERS)}.")
    return TRACKERS[tracker.lower()]()
