"""Where tracked boxes are expected in the next frame: a Kalman filter with constant velocity, for many at once.

The state of a box is (cx, cy, w / h, h) and its change per frame; noise grows with the height of the box, since a large
object moves by more pixels (Wojke et al., Simple Online and Realtime Tracking with a Deep Association Metric, 2017).

Legend: n tracks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POSITION, VELOCITY = 1 / 20, 1 / 160  # standard deviations, as shares of the height (ibid.)
ASPECT, ASPECT_CHANGE, ASPECT_SEEN = 1e-2, 1e-5, 1e-1  # of w / h: of a state, its change, a detection
STEP = np.eye(8) + np.eye(8, k=4)  # one frame on: each value grows by its change

Array = NDArray[np.float64]


def to_state(boxes: Array) -> Array:
    """(n, 4) corners as (n, 4) cx cy w/h h."""
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    return np.column_stack([(boxes[:, :2] + boxes[:, 2:]) / 2, size[:, 0] / size[:, 1], size[:, 1]])


def to_boxes(mean: Array) -> Array:
    """States (n, 8) as (n, 4) corners."""
    half = np.column_stack([mean[:, 2] * mean[:, 3], mean[:, 3]]) / 2
    return np.hstack([mean[:, :2] - half, mean[:, :2] + half])


def begun(boxes: Array) -> tuple[Array, Array]:
    """Mean (n, 8) and covariance (n, 8, 8) of boxes (n, 4) that are seen for the first time."""
    state = to_state(boxes)
    return np.hstack([state, np.zeros_like(state)]), _diagonal(
        state[:, 3], 2 * POSITION, ASPECT, 10 * VELOCITY, ASPECT_CHANGE
    )


def predicted(mean: Array, covariance: Array) -> tuple[Array, Array]:
    """Mean and covariance one frame later."""
    noise = _diagonal(mean[:, 3], POSITION, ASPECT, VELOCITY, ASPECT_CHANGE)
    return mean @ STEP.T, STEP @ covariance @ STEP.T + noise


def corrected(mean: Array, covariance: Array, boxes: Array) -> tuple[Array, Array]:
    """Mean and covariance after boxes (n, 4) were seen."""
    seen = to_state(boxes)
    noise = _diagonal(mean[:, 3], POSITION, ASPECT_SEEN, VELOCITY, ASPECT_CHANGE)[:, :4, :4]
    gain = covariance[:, :, :4] @ np.linalg.inv(covariance[:, :4, :4] + noise)
    moved = mean + (gain @ (seen - mean[:, :4])[..., None])[..., 0]
    return moved, covariance - gain @ covariance[:, :4]


def _diagonal(height: Array, place: float, aspect: float, speed: float, change: float) -> Array:
    """Covariances (n, 8, 8) of values that vary alone."""
    one = np.ones_like(height)
    moves, turns = height * place, height * speed
    deviation = np.column_stack([moves, moves, aspect * one, moves, turns, turns, change * one, turns])
    return np.square(deviation)[:, :, None] * np.eye(8)
