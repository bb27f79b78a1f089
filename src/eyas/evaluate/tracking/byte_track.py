"""ByteTrack (Zhang et al., ByteTrack: Multi-Object Tracking by Associating Every Detection Box, 2022).

Boxes of a high score are matched with the tracks first; those of a low score, which most trackers throw away, then
keep the tracks that found none: an object that is half hidden is seen with a low score.

Legend: n detections of a frame, t tracks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from eyas.evaluate.tracking import motion
from eyas.evaluate.tracking.motion import Array

LOW_COST, FRESH_COST = 0.5, 0.7  # largest cost of a match with a box of low score, and with a track of one frame
NONE = -1  # the id of a detection that belongs to no track

Index = NDArray[np.int64]


class ByteTrack:
    """Gives the detections of frame after frame ids of the objects that they are of.

    Args:
        track_high_thresh: scores from here on are matched first.
        track_low_thresh: lower scores are no detections at all.
        new_track_thresh: a detection that matches nothing begins a track from this score on.
        track_buffer: frames that a track waits for its object to be seen again.
        match_thresh: largest cost of a match, 1 - IoU, times the score if `fuse_score`.
        fuse_score: let a detection of a higher score be the better match.

    Raises:
        ValueError: a threshold outside [0, 1], or a buffer below 0.
    """

    def __init__(
        self,
        *,
        track_high_thresh: float = 0.25,
        track_low_thresh: float = 0.1,
        new_track_thresh: float = 0.25,
        track_buffer: int = 30,
        match_thresh: float = 0.8,
        fuse_score: bool = True,
    ) -> None:
        shares = {"track_high_thresh": track_high_thresh, "track_low_thresh": track_low_thresh}
        shares |= {"new_track_thresh": new_track_thresh, "match_thresh": match_thresh}
        wrong = [f"{name}={value}" for name, value in shares.items() if not 0 <= value <= 1]
        if wrong or track_buffer < 0:
            raise ValueError(
                f"a tracker takes thresholds from 0 to 1 and a buffer from 0 on, not {wrong or track_buffer}"
            )
        self.high, self.low, self.new = track_high_thresh, track_low_thresh, new_track_thresh
        self.buffer, self.match_thresh, self.fuse_score = track_buffer, match_thresh, fuse_score
        self.reset()

    def reset(self) -> None:
        """Forget all objects; the next frame is the first, and ids begin at 1."""
        self._frame = 0
        self._next = 1
        self._mean, self._covariance = motion.begun(np.zeros((0, 4)))
        self._id = np.zeros(0, np.int64)
        self._seen = np.zeros(0, np.int64)  # frame in which a track was seen last
        self._sure = np.zeros(0, bool)  # seen in more than one frame, or in the first

    def update(self, boxes: NDArray, score: NDArray) -> Index:
        """Take the detections of the next frame.

        Args:
            boxes: (n, 4) corners in pixels.
            score: (n,) in [0, 1].

        Returns:
            (n,) the id of each, from 1, or ``NONE``.
        """
        self._frame += 1
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        self._mean, self._covariance = motion.predicted(self._mean, self._covariance)
        high, low = np.flatnonzero(score >= self.high), np.flatnonzero((score >= self.low) & (score < self.high))
        present = self._seen == self._frame - 1

        expected = motion.to_boxes(self._mean)
        sure = np.flatnonzero(self._sure)
        first = self._matched(expected, sure, boxes, high, self.match_thresh, score)
        left = np.setdiff1d(np.flatnonzero(self._sure & present), first[:, 0])
        second = self._matched(expected, left, boxes, low, LOW_COST, None)
        open_high = np.setdiff1d(high, first[:, 1])
        third = self._matched(expected, np.flatnonzero(~self._sure), boxes, open_high, FRESH_COST, score)

        track, found = np.concatenate([first, second, third]).T
        self._correct(track, boxes[found])
        ids = np.full(len(boxes), NONE, np.int64)
        ids[found] = self._id[track]
        self._drop()
        begins = np.setdiff1d(open_high, third[:, 1])
        self._begin(boxes, begins[score[begins] >= self.new], ids)
        return ids

    def _matched(
        self, expected: Array, tracks: Index, boxes: Array, found: Index, largest: float, score: NDArray | None
    ) -> Index:
        """(k, 2) track and detection of the best matches whose cost is not too large."""
        if not len(tracks) or not len(found):
            return np.zeros((0, 2), np.int64)
        likeness = _iou(expected[tracks], boxes[found])
        if score is not None and self.fuse_score:
            likeness = likeness * score[found]
        cost = 1 - likeness
        i, j = linear_sum_assignment(np.where(cost <= largest, cost, 1e3))
        kept = cost[i, j] <= largest
        return np.column_stack([tracks[i[kept]], found[j[kept]]])

    def _correct(self, tracks: Index, boxes: Array) -> None:
        mean, covariance = motion.corrected(self._mean[tracks], self._covariance[tracks], boxes)
        self._mean[tracks], self._covariance[tracks] = mean, covariance
        self._seen[tracks], self._sure[tracks] = self._frame, True

    def _drop(self) -> None:
        """Forget tracks that waited too long, and those of one frame that were not seen again."""
        waited = self._frame - self._seen
        kept = (waited == 0) | (self._sure & (waited <= self.buffer))
        self._mean, self._covariance = self._mean[kept], self._covariance[kept]
        self._id, self._seen, self._sure = self._id[kept], self._seen[kept], self._sure[kept]
        self._mean[self._seen < self._frame, 7] = 0  # a hidden object keeps its height

    def _begin(self, boxes: Array, found: Index, ids: Index) -> None:
        """Begin tracks; those of the first frame have ids at once, others when they are seen a second time."""
        mean, covariance = motion.begun(boxes[found])
        numbers = np.arange(self._next, self._next + len(found))
        self._next += len(found)
        self._mean, self._covariance = np.vstack([self._mean, mean]), np.concatenate([self._covariance, covariance])
        self._id = np.append(self._id, numbers)
        self._seen = np.append(self._seen, np.full(len(found), self._frame))
        self._sure = np.append(self._sure, np.full(len(found), self._frame == 1))
        if self._frame == 1:
            ids[found] = numbers


def _iou(a: Array, b: Array) -> Array:
    """(len(a), len(b)) intersection over union of corner boxes."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).clip(0).prod(-1) for box in (a, b))
    return shared / np.maximum(area_a[:, None] + area_b[None] - shared, 1e-9)
