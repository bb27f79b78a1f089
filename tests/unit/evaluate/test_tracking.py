"""Objects that are followed: the same object has the same id in every frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eyas.evaluate import Results
from eyas.evaluate.tracking import ByteTrack, Follower, make_tracker
from eyas.evaluate.tracking.byte_track import NONE


def box(x: float, y: float = 50.0, w: float = 20.0, h: float = 30.0) -> list[float]:
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def ids_of(
    frames: list[list[list[float]]], scores: list[list[float]] | None = None, **settings: Any
) -> list[list[int]]:
    """Ids of the boxes of each frame."""
    tracker, found = ByteTrack(**settings), []
    for i, boxes in enumerate(frames):
        score = np.array(scores[i] if scores else [0.9] * len(boxes))
        found.append(tracker.update(np.array(boxes).reshape(-1, 4), score).tolist())
    return found


def test_objects_that_pass_each_other_keep_their_ids() -> None:
    """One goes right, one left, in lanes that overlap; the order of the boxes changes in every frame."""
    frames = [[box(20 + 6 * i, 50), box(200 - 6 * i, 62)][:: 1 if i % 2 else -1] for i in range(30)]
    for i, ids in enumerate(ids_of(frames)):
        assert ids == ([1, 2] if i % 2 == 0 else [2, 1])


def test_an_object_that_was_hidden_comes_back_as_itself() -> None:
    """It moves on meanwhile, by more than its own width: only a motion that is foreseen finds it."""
    frames = [[box(20 + 5 * i)] if not 10 <= i < 18 else [] for i in range(25)]
    assert [ids for ids in ids_of(frames) if ids] == [[1]] * 17
    assert ids_of(frames, track_buffer=5)[-1] == [2]


def test_weak_detections_keep_a_track_and_begin_none() -> None:
    frames = [[box(50 + i), box(150)] for i in range(12)]
    scores = [[0.9 if i < 4 else 0.15, 0.15] for i in range(12)]
    assert ids_of(frames, scores) == [[1, NONE]] * 12
    assert ids_of(frames, [[0.9 if i < 4 else 0.05, 0.05] for i in range(12)])[-1] == [NONE, NONE]


def test_a_detection_of_a_single_frame_is_no_object() -> None:
    frames = [[box(50)], [box(50), box(150)], [box(50)], [box(50), box(250)], [box(50), box(250)]]
    assert ids_of(frames) == [[1], [1, NONE], [1], [1, NONE], [1, 3]]


def test_a_tracker_that_is_reset_begins_anew() -> None:
    tracker = ByteTrack()
    boxes, score = np.array([box(50), box(150)]), np.array([0.9, 0.9])
    assert tracker.update(boxes, score).tolist() == tracker.update(boxes, score).tolist() == [1, 2]
    tracker.reset()
    assert tracker.update(boxes[1:], score[1:]).tolist() == [1]


def result(x: float, path: str = "a.mp4", frame: int | None = 1) -> Results:
    """A frame with an object at x, and a doubtful one elsewhere."""
    rows = torch.tensor([[*box(x), 0.9, 1], [*box(300), 0.12, 0]])
    return Results(np.zeros((100, 400, 3), np.uint8), path, {0: "cat", 1: "dog"}, rows, frame=frame, fps=frame and 10.0)


def test_results_get_ids_and_lose_what_belongs_to_nothing() -> None:
    found = list(Follower(ByteTrack())(result(50 + i, frame=i + 1) for i in range(3)))
    boxes = found[-1].boxes
    assert boxes.data.shape == (1, 7) and boxes.is_track and boxes.id.tolist() == [1.0]
    assert boxes.conf.tolist() == pytest.approx([0.9]) and boxes.cls.tolist() == [1.0]
    assert found[-1].frame == 3 and found[-1].summary()[0]["track_id"] == 1


def test_another_video_is_another_story_and_frames_one_by_one_are_one() -> None:
    shots = [result(50, "a.mp4", 1), result(200, "a.mp4", 2), result(200, "a.mp4", 3), result(50, "b.mp4", 1)]
    assert [r.boxes.id.tolist() for r in Follower(ByteTrack())(iter(shots))] == [[1.0], [], [2.0], [1.0]]
    alone = Follower(ByteTrack())
    assert [next(alone(iter([result(50, f"image{i}", None)]))).boxes.id.tolist() for i in (0, 1)] == [[1.0], [1.0]]


def test_trackers_from_elsewhere_take_and_return_detections() -> None:
    """The way of the package `trackers`: unconfirmed objects have the id -1, and rows may come in another order."""
    pytest.importorskip("supervision", reason="supervision is not installed")

    class Elsewhere:
        def update(self, detections: Any) -> Any:
            detections.tracker_id = np.array([7, -1])
            return detections[::-1]

        def reset(self) -> None:
            raise AssertionError("one video")

    (found,) = Follower(make_tracker(Elsewhere()))(iter([result(50)]))
    assert found.boxes.id.tolist() == [7.0] and found.class_id.tolist() == [1]
    assert found.to_supervision().tracker_id.tolist() == [7]


def test_trackers_by_name_file_and_settings(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("tracker_type: bytetrack\ntrack_buffer: 7\nmatch_thresh: 0.5\n")
    mine = make_tracker(file)
    assert isinstance(mine, ByteTrack) and (mine.buffer, mine.match_thresh) == (7, 0.5)
    assert isinstance(make_tracker("bytetrack.yaml"), ByteTrack) and isinstance(make_tracker({}), ByteTrack)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("botsort", "there is 'bytetrack'"),
        ("botsort.yaml", "no such file"),
        ({"tracker_type": "botsort"}, "tracker_type='botsort'"),
        ({"track_bufer": 3}, "Did you mean"),
        ({"match_thresh": 2}, "from 0 to 1"),
    ],
)
def test_trackers_that_there_are_not(given: Any, words: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        make_tracker(given)
