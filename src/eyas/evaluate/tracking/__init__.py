"""Following objects from frame to frame."""

from __future__ import annotations

from eyas.evaluate.tracking.byte_track import ByteTrack
from eyas.evaluate.tracking.follow import Follower, make_tracker

__all__ = ["ByteTrack", "Follower", "make_tracker"]
