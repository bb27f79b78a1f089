"""Where the numbers of a run go besides its folder: one stream of events, and a small reader for each tracker."""

from eyas.trackers.base import Ended, Started, Tracker
from eyas.trackers.registry import TRACKERS, tracker_named
from eyas.trackers.stream import Trackers

__all__ = ["TRACKERS", "Ended", "Started", "Tracker", "Trackers", "tracker_named"]
