"""Matching against trying everything, against costs written out, and what happens where numbers or queries run out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eyas.assign import HungarianMatcher, OverlapMatcher
from eyas.assign.hungarian import pair_boxes, replace_non_finite, solve
from eyas.boxes import cxcywh_to_xyxy, elementwise_giou, elementwise_iou

Case = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def case(outputs: int = 2, queries: int = 6, nc: int = 3, objects: tuple[int, ...] = (2, 0, 3), seed: int = 0) -> Case:
    """Return scores, boxes, labels, targets, image."""
    rng = torch.Generator().manual_seed(seed)
    shape, total = (outputs, len(objects), queries), sum(objects)
    image = torch.arange(len(objects)).repeat_interleave(torch.tensor(objects))
    return (
        torch.randn(*shape, nc, generator=rng),
        torch.rand(*shape, 4, generator=rng),
        torch.randint(nc, (total,), generator=rng),
        torch.rand(total, 4, generator=rng),
        image,
    )


def cheapest(cost: np.ndarray) -> float:
    """Return the lowest total cost of matching rows and columns (T, Q), by trying all ways."""
    cost = cost if cost.shape[0] <= cost.shape[1] else cost.T
    rows = range(cost.shape[0])
    return min(
        math.fsum(cost[r, c] for r, c in zip(rows, columns, strict=True))
        for columns in itertools.permutations(range(cost.shape[1]), len(rows))
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("t", "q"), [(1, 1), (2, 5), (4, 4), (5, 3)])
def test_the_cheapest_of_all_matchings(t: int, q: int, seed: int) -> None:
    cost = np.random.default_rng(seed).standard_normal((2, t, q)).astype(np.float32)
    query = solve(cost, np.zeros(t, dtype=np.int64))
    for own, found in zip(cost, query, strict=True):
        assert (found >= 0).sum() == min(t, q)
        assert len(set(found[found >= 0])) == min(t, q)
        total = math.fsum(own[row, column] for row, column in enumerate(found) if column >= 0)
        assert total == pytest.approx(cheapest(own), abs=1e-6)


def test_images_and_outputs_are_matched_by_themselves_in_any_order_of_rows() -> None:
    scores, boxes, labels, targets, image = case()
    matcher = HungarianMatcher()
    query = matcher(scores, boxes, labels, targets, image)
    assert query.shape == (2, 5)
    assert query.dtype == torch.int64
    for n, b in itertools.product(range(2), (0, 2)):
        own = image == b
        alone = matcher(scores[n, b][None, None], boxes[n, b][None, None], labels[own], targets[own], image[own] * 0)
        assert torch.equal(query[n, own], alone[0])
    order = torch.tensor([4, 0, 3, 1, 2])
    mixed = matcher(scores, boxes, labels[order], targets[order], image[order])
    assert torch.equal(mixed, query[:, order])


def test_costs_written_out() -> None:
    scores, boxes, labels, targets, image = case()
    cost = HungarianMatcher().cost(scores, boxes, labels, targets, image)
    for n, t, q in itertools.product(range(2), range(5), range(6)):
        p = scores[n, image[t], q, labels[t]].sigmoid().item()
        focal = 0.25 * (1 - p) ** 2 * -math.log(p) - 0.75 * p**2 * -math.log(1 - p)
        box = boxes[n, image[t], q]
        giou = elementwise_giou(cxcywh_to_xyxy(box), cxcywh_to_xyxy(targets[t])).item()
        expected = 2 * focal + 5 * (box - targets[t]).abs().sum().item() + 2 * (1 - giou)
        assert cost[n, t, q].item() == pytest.approx(expected, abs=1e-5)


def test_boxes_coordinate_by_coordinate_are_the_boxes_of_the_library() -> None:
    _, boxes, _, targets, image = case(queries=50)
    boxes[0, 0, 0] = targets[0]
    boxes[0, 0, 1] = 0
    l1, iou, giou = pair_boxes(boxes, targets, image)
    mine, theirs = boxes[:, image], targets[:, None]
    torch.testing.assert_close(l1, (mine - theirs).abs().sum(-1))
    torch.testing.assert_close(iou, elementwise_iou(cxcywh_to_xyxy(mine), cxcywh_to_xyxy(theirs)))
    torch.testing.assert_close(giou, elementwise_giou(cxcywh_to_xyxy(mine), cxcywh_to_xyxy(theirs)))


def test_late_costs_written_out() -> None:
    scores, boxes, labels, targets, image = case()
    boxes[0, image[0], 2] = targets[0] * torch.tensor([1, 1, 0.8, 0.9])
    cost = OverlapMatcher().cost(scores.half(), boxes, labels, targets, image)
    for n, t, q in itertools.product(range(2), range(5), range(6)):
        p = scores[n, image[t], q, labels[t]].half().float().sigmoid().item()
        iou = elementwise_iou(cxcywh_to_xyxy(boxes[n, image[t], q]), cxcywh_to_xyxy(targets[t])).item()
        assert cost[n, t, q].item() == pytest.approx(-p * iou**4, abs=1e-6)
    assert cost[0, 0, 2].item() < -0.25 * scores[0, image[0], 2, labels[0]].sigmoid().item()


def test_gains_choose_what_counts() -> None:
    scores, boxes, labels, targets, image = case(outputs=1, objects=(1,))
    boxes[0, 0, 3], scores[0, 0, 5, labels[0]] = targets[0], 9.0
    only_class = HungarianMatcher(l1_gain=0, giou_gain=0)
    only_boxes = HungarianMatcher(cls_gain=0)
    assert only_class(scores, boxes, labels, targets, image).item() == 5
    assert only_boxes(scores, boxes, labels, targets, image).item() == 3


def test_more_objects_than_queries() -> None:
    query = HungarianMatcher()(*case(queries=2, objects=(5, 1, 0)))
    assert (query[:, :5] >= 0).sum(1).tolist() == [2, 2]
    assert (query[:, 5] >= 0).all()
    for row in query[:, :5]:
        assert sorted(row.tolist()) == [-1, -1, -1, 0, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_loses(bad: float) -> None:
    scores, boxes, labels, targets, image = case(queries=4, objects=(3, 2, 0))
    boxes[0, 0, 1] = bad
    scores[1, 1, 2] = bad
    query = HungarianMatcher()(scores, boxes, labels, targets, image)
    assert sorted(query[0, :3].tolist()) == [0, 2, 3]
    assert 2 not in query[1, 3:].tolist()
    boxes[:, 0] = bad  # nothing finite is left in this image; the other one is matched as before
    again = HungarianMatcher()(scores, boxes, labels, targets, image)
    assert (again >= 0).all()
    assert torch.equal(again[:, 3:], query[:, 3:])


def test_finite_costs_win_even_where_they_are_huge() -> None:
    cost = np.array([[[1e30, math.nan, -1e30], [math.inf, 0, 1e30]]], dtype=np.float32)
    assert solve(cost, np.zeros(2, dtype=np.int64)).tolist() == [[2, 1]]
    assert np.isfinite(replace_non_finite(np.full((1, 2, 2), math.nan))).all()
    finite = np.ones((1, 2, 2))
    assert replace_non_finite(finite) is finite


def test_float16_predictions_are_compared_in_float32() -> None:
    scores, boxes, labels, targets, image = case()
    half = HungarianMatcher().cost(scores.half(), boxes.half(), labels, targets, image)
    assert half.dtype == torch.float32
    full = HungarianMatcher().cost(scores.half().float(), boxes.half().float(), labels, targets, image)
    assert torch.equal(half, full)


@pytest.mark.parametrize(("objects", "transfers"), [((2, 0, 3), 1), ((0, 0, 0), 0)])
def test_one_transfer_for_the_whole_batch(
    objects: tuple[int, ...], transfers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Size] = []
    to_host = Tensor.cpu

    def count(self: Tensor) -> Tensor:
        seen.append(self.shape)
        return to_host(self)

    monkeypatch.setattr(Tensor, "cpu", count)
    query = HungarianMatcher()(*case(outputs=7, objects=objects))
    assert query.shape == (7, sum(objects))
    assert len(seen) == transfers


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_as_many_finite_pairs_as_there_can_be_and_those_at_the_lowest_cost(data: st.DataObject) -> None:
    """Tried in all ways: a cost that is no number is dearer than any sum of numbers."""
    t, q = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    value = st.sampled_from([math.nan, math.inf, -math.inf]) | st.sampled_from([-1000.0, -3.0, 0.0, 0.5, 2.0, 1000.0])
    cost = np.array(data.draw(st.lists(value, min_size=t * q, max_size=t * q)), np.float32).reshape(t, q)
    query = solve(cost[None], np.zeros(t, dtype=np.int64))[0]
    pairs = [float(cost[row, column]) for row, column in enumerate(query) if column >= 0]
    finite = [value for value in pairs if math.isfinite(value)]
    wide = cost if t <= q else cost.T
    ways = [
        [float(wide[row, column]) for row, column in enumerate(columns) if math.isfinite(wide[row, column])]
        for columns in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    ]
    most = max(map(len, ways))
    assert len(pairs) == min(t, q) and len(finite) == most
    assert math.fsum(finite) == pytest.approx(min(math.fsum(way) for way in ways if len(way) == most))
