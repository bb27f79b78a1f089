"""Results of frame after frame -> the same results with ids; and what may follow the objects."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml

from eyas.evaluate.results import Results
from eyas.evaluate.tracking.byte_track import ByteTrack
from eyas.names import did_you_mean

NAMES = ("bytetrack", "bytetrack.yaml")
KEYS = tuple(inspect.signature(ByteTrack).parameters)


class DetectionsTracker(Protocol):
    """A tracker from elsewhere, such as those of the package `trackers`."""

    def update(self, detections: Any) -> Any:
        """Take the `supervision.Detections` of a frame; return those that belong to an object, with `tracker_id`."""

    def reset(self) -> None:
        """Forget all objects."""


Tracker = ByteTrack | DetectionsTracker


def make_tracker(given: str | Path | Mapping[str, Any] | DetectionsTracker) -> Tracker:
    """Return a new tracker by its name, by a YAML file or a mapping of ByteTrack's settings, or the one given.

    Raises:
        ValueError: there is none of that name, or it has no such setting.
        FileNotFoundError: there is no such file.
    """
    if isinstance(given, Mapping):
        return _from_settings(given, "the tracker")
    if not isinstance(given, str | Path):
        return given
    if str(given) in NAMES and not Path(given).is_file():
        return ByteTrack()
    if Path(given).suffix.lower() not in (".yaml", ".yml"):
        raise ValueError(
            f"tracker={str(given)!r}: there is 'bytetrack', a YAML file of its settings, or a tracker object"
        )
    if not Path(given).is_file():
        raise FileNotFoundError(f"tracker={str(given)!r}: there is no such file; Eyas' own tracker is 'bytetrack'")
    settings = yaml.safe_load(Path(given).read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise ValueError(f"{given}: settings are lines such as track_buffer: 30")
    return _from_settings(settings, str(given))


def _from_settings(settings: Mapping[str, Any], where: str) -> ByteTrack:
    kind = settings.get("tracker_type", "bytetrack")
    if kind != "bytetrack":
        raise ValueError(f"{where} is for tracker_type={kind!r}; Eyas has 'bytetrack'. Give other trackers as objects")
    for name in settings:
        if name not in (*KEYS, "tracker_type"):
            raise ValueError(f"{where} has no {name!r}.{did_you_mean(str(name), KEYS)} It has: {', '.join(KEYS)}")
    return ByteTrack(**{name: value for name, value in settings.items() if name != "tracker_type"})


class Follower:
    """Gives results ids; detections of no object are left out. Another video is another story: ids begin anew.

    Args:
        tracker: what knows the objects.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def __call__(self, results: Iterator[Results]) -> Iterator[Results]:
        """Pass results on, with ids."""
        video: str | None = None
        for result in results:
            if result.fps is not None:
                if video is not None and result.path != video:
                    self.tracker.reset()
                video = result.path
            yield self.tracked(result)

    def tracked(self, result: Results) -> Results:
        """The result of the next frame, with boxes (n, 7)."""
        rows = torch.as_tensor(result.boxes.data)
        if isinstance(self.tracker, ByteTrack):
            ids = torch.from_numpy(self.tracker.update(result.xyxy, result.confidence))
            found = torch.cat([rows[:, :4], ids[:, None].to(rows), rows[:, 4:]], dim=1)
        else:
            found = torch.from_numpy(_rows_of(self.tracker.update(result.to_supervision()))).to(rows)
        return result.with_boxes(found[found[:, 4] >= 0])


def _rows_of(detections: Any) -> np.ndarray:
    """(n, 7) of a `supervision.Detections`."""
    ids = detections.tracker_id if detections.tracker_id is not None else np.full(len(detections), -1)
    columns = (ids, detections.confidence, detections.class_id)
    return np.column_stack([np.asarray(detections.xyxy).reshape(-1, 4), *columns]).astype(np.float32)
