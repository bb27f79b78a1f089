"""NMS against the plain greedy loop, and both paths to final detections."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.boxes import cxcywh_to_xyxy, elementwise_iou
from eyas.models import postprocess
from eyas.models.postprocess import nms, topk_detections


def greedy(boxes: torch.Tensor, groups: torch.Tensor, iou: float) -> list[int]:
    kept: list[int] = []
    for i in range(len(boxes)):
        if all(groups[i] != groups[j] or elementwise_iou(boxes[i], boxes[j]) <= iou for j in kept):
            kept.append(i)
    return kept


def crowd(n: int, seed: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    corner, side = torch.rand(n, 2, generator=g) * 60, torch.rand(n, 2, generator=g) * 40 + 5
    return torch.cat((corner, corner + side), 1), torch.randint(0, classes, (n,), generator=g).float()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(0, 999), st.sampled_from([0.2, 0.5, 0.7]))
def test_nms_equals_the_greedy_loop(n: int, seed: int, iou: float) -> None:
    boxes, groups = crowd(n, seed)
    expected = greedy(boxes, groups, iou)
    assert nms(boxes, groups, iou, 1000).tolist() == expected
    assert nms(boxes, groups, iou, 5).tolist() == expected[:5]


def test_nms_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, groups = crowd(300, 1)
    whole = nms(boxes, groups, 0.5, 1000)
    monkeypatch.setitem(nms.__globals__, "NMS_BLOCK", 17)
    assert torch.equal(nms(boxes, groups, 0.5, 1000), whole)
    assert whole.tolist() == greedy(boxes, groups, 0.5)


def test_chain_of_overlaps_keeps_every_other_box() -> None:
    """Each box suppresses only its neighbour, so the answer needs one round for each link."""
    x = torch.arange(40.0) * 4
    boxes = torch.stack((x, torch.zeros(40), x + 10, torch.full((40,), 10.0)), 1)  # neighbours: 6/14
    assert nms(boxes, torch.zeros(40), 0.4, 100).tolist() == list(range(0, 40, 2))


def dense(rows: list[list[float]]) -> torch.Tensor:
    """(1, 4 + 2, A) from rows cx cy w h score0 score1."""
    return torch.tensor(rows).T[None]


ROWS = [[50, 50, 20, 20, 0.9, 0.3], [51, 50, 20, 20, 0.8, 0.2], [90, 90, 10, 10, 0.1, 0.7], [20, 20, 8, 8, 0.01, 0.02]]


def scores(result: list[torch.Tensor]) -> list[tuple[float, int]]:
    return [(round(s, 4), int(c)) for s, c in result[0][:, 4:].tolist()]


def test_dense_path() -> None:
    y = dense(ROWS)
    assert scores(postprocess(y, end2end=False, conf=0.25, multi_label=False)) == [(0.9, 0), (0.7, 1)]
    assert scores(postprocess(y, end2end=False, conf=0.15)) == [(0.9, 0), (0.7, 1), (0.3, 1)]
    assert scores(postprocess(y, end2end=False, conf=0.15, agnostic=True)) == [(0.9, 0), (0.7, 1)]
    assert scores(postprocess(y, end2end=False, conf=0.15, classes=[1])) == [(0.7, 1), (0.3, 1)]
    assert scores(postprocess(y, end2end=False, conf=0.15, max_det=1)) == [(0.9, 0)]
    assert scores(postprocess(y, end2end=False, conf=0.15, iou=0.99))[:2] == [(0.9, 0), (0.8, 0)]
    (rows,) = postprocess(y, end2end=False, conf=0.25)
    torch.testing.assert_close(rows[0, :4], cxcywh_to_xyxy(torch.tensor([50.0, 50, 20, 20])))
    assert postprocess(y, end2end=False, conf=0.95)[0].shape == (0, 6)


def test_single_class_needs_no_second_label() -> None:
    y = torch.tensor([[50.0, 50, 20, 20, 0.9]]).T[None]
    assert scores(postprocess(y, end2end=False, conf=0.1)) == [(0.9, 0)]


def test_end_to_end_path_filters_only() -> None:
    y = torch.tensor([[[0.0, 0, 9, 9, 0.9, 1], [0, 0, 9, 9, 0.8, 1], [0, 0, 9, 9, 0.2, 0]]])
    assert scores(postprocess(y, end2end=True, conf=0.25)) == [(0.9, 1), (0.8, 1)]
    assert scores(postprocess(y, end2end=True, conf=0.1, classes=[0])) == [(0.2, 0)]
    assert scores(postprocess(y, end2end=True, conf=0.1, max_det=1)) == [(0.9, 1)]


def test_topk() -> None:
    boxes = torch.arange(12.0).view(1, 3, 4)
    s = torch.tensor([[[0.1, 0.9, 0.8], [0.7, 0.2, 0.0], [0.3, 0.05, 0.0]]])
    best = topk_detections(boxes, s, 2)
    assert best[0, :, 4:].tolist() == [[pytest.approx(0.9), 1], [pytest.approx(0.8), 2]]
    assert best[0, :, 0].tolist() == [0, 0]  # one anchor, two classes
    assert topk_detections(boxes, s, 2, agnostic=True)[0, :, 5].tolist() == [1, 0]
    assert topk_detections(boxes, s, 300).shape == (1, 3, 6)


def test_scores_and_overlaps_must_exceed_their_limits() -> None:
    y = dense([[50, 50, 20, 20, 0.75, 0], [60, 50, 20, 20, 0.5, 0], [200, 50, 20, 20, 0.25, 0]])  # overlap 1/3
    third = float(torch.tensor(1 / 3))
    assert scores(postprocess(y, end2end=False, conf=0.25, iou=third)) == [(0.75, 0), (0.5, 0)]
    assert scores(postprocess(y, end2end=False, conf=0.25, iou=third - 1e-6)) == [(0.75, 0)]
    assert scores(postprocess(y, end2end=False, conf=0.2, iou=0.1)) == [(0.75, 0), (0.25, 0)]
    rows = torch.tensor([[[0.0, 0, 9, 9, 0.75, 1], [0, 0, 9, 9, 0.25, 1]]])
    assert scores(postprocess(rows, end2end=True, conf=0.25)) == [(0.75, 1)]


def test_classes_of_the_agnostic_choice_are_those_of_the_chosen_anchors() -> None:
    g = torch.Generator().manual_seed(0)
    boxes, s = torch.rand(2, 9, 4, generator=g), torch.rand(2, 9, 5, generator=g)
    found = topk_detections(boxes, s, 4, agnostic=True)
    for b in range(2):
        order = s[b].amax(1).argsort(descending=True)[:4]
        assert found[b, :, 5].tolist() == s[b, order].argmax(1).tolist()
        assert torch.equal(found[b, :, :4], boxes[b, order])


def test_a_crowd_of_thousands_reaches_nms() -> None:
    """400 objects with ten boxes each: the weak boxes of strong objects must not crowd the others out."""
    x = torch.arange(400.0).repeat_interleave(10) * 30
    strength = torch.linspace(1.0, 0.5, 4000)
    y = torch.stack((x, torch.zeros(4000), torch.full((4000,), 20.0), torch.full((4000,), 20.0), strength))[None]
    (rows,) = postprocess(y, end2end=False, conf=0.1, max_det=1000)
    assert len(rows) == 400 and torch.equal(rows[:, 0], torch.arange(400.0) * 30 - 10)
