from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.metrics.matching import IOU_THRESHOLDS, match_detections, match_iou_matrix, paired_iou


def greedy_reference(boxes, scores, cls, image, gt_boxes, gt_cls, gt_image, thresholds, class_aware=True):
    """The definition of spec core F.2, word for word: one detection after the other."""
    matched = np.full((len(boxes), len(thresholds)), -1)
    for t, threshold in enumerate(thresholds):
        claimed = set()
        for d in np.argsort(-np.asarray(scores, float), kind="stable"):
            best, best_iou = -1, 0.0
            for g in range(len(gt_boxes)):
                if g in claimed or gt_image[g] != image[d] or (class_aware and gt_cls[g] != cls[d]):
                    continue
                iou = paired_iou(boxes[d][None], gt_boxes[g][None])[0]
                if iou > best_iou:
                    best, best_iou = g, iou
            if best >= 0 and best_iou >= threshold:
                claimed.add(best)
                matched[d, t] = best
    return matched


@st.composite
def boxes(draw, most):
    """Boxes on a coarse grid, so that equal IoUs and equal scores are common."""
    count = draw(st.integers(0, most))
    corner, side = st.integers(0, 4), st.integers(1, 4)
    rows = draw(st.lists(st.tuples(corner, corner, side, side), min_size=count, max_size=count))
    xywh = np.array(rows, float).reshape(-1, 4)
    ids = draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=count, max_size=count))
    ids = np.array(ids, int).reshape(-1, 2)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1), ids[:, 0], ids[:, 1]


@settings(max_examples=150, deadline=None)
@given(boxes(14), boxes(8), st.lists(st.sampled_from([0.1, 0.5, 0.5, 0.9]), min_size=14, max_size=14), st.booleans())
def test_equals_the_greedy_definition(found, truth, scores, class_aware):
    det, det_cls, det_image = found
    gt, gt_cls, gt_image = truth
    args = (det, np.array(scores[: len(det)]), det_cls, det_image, gt, gt_cls, gt_image)
    thresholds = np.array([0.1, 0.3, 0.5, 0.75, 0.95])
    expected = greedy_reference(*args, thresholds, class_aware)
    np.testing.assert_array_equal(match_detections(*args, thresholds=thresholds, class_aware=class_aware), expected)


@settings(max_examples=100, deadline=None)
@given(boxes(10), boxes(6), st.data())
def test_detections_left_out_at_a_threshold_are_as_if_they_were_not_there(found, truth, data):
    det, det_cls, det_image = found
    gt, gt_cls, gt_image = truth
    thresholds = np.array([0.2, 0.5])
    one = st.lists(st.booleans(), min_size=len(det), max_size=len(det))
    among = np.array([data.draw(one), data.draw(one)], bool).reshape(2, -1).T
    scores = np.linspace(0.9, 0.1, len(det))
    found = match_detections(det, scores, det_cls, det_image, gt, gt_cls, gt_image, thresholds=thresholds, among=among)
    expected = np.full((len(det), 2), -1)
    for t, threshold in enumerate(thresholds):
        in_ = among[:, t]
        args = det[in_], scores[in_], det_cls[in_], det_image[in_], gt, gt_cls, gt_image
        expected[in_, t] = greedy_reference(*args, [threshold])[:, 0]
    np.testing.assert_array_equal(found, expected)


def test_equals_the_greedy_definition_in_a_crowd():
    rng = np.random.default_rng(0)
    gt = rng.uniform(0, 40, (20, 2))
    gt = np.concatenate([gt, gt + rng.uniform(15, 30, (20, 2))], axis=1)
    det = np.repeat(gt, 8, axis=0) + rng.normal(0, 3, (160, 4))
    args = (det, rng.random(160), np.zeros(160), np.zeros(160), gt, np.zeros(20), np.zeros(20))
    np.testing.assert_array_equal(match_detections(*args), greedy_reference(*args, IOU_THRESHOLDS))


def test_golden_vector_of_the_spec():
    matched = match_iou_matrix(np.array([[0.9, 0.8, 0.3], [0.6, 0.85, 0.55]]))
    assert (matched >= 0).sum(axis=1).tolist() == [9, 8, 0]
    assert set(matched[0]) == {0, -1} and set(matched[1]) == {1, -1}


@pytest.mark.parametrize(("num_det", "num_gt"), [(0, 0), (0, 3), (3, 0)])
def test_one_side_empty(num_det, num_gt):
    det, gt = np.zeros((num_det, 4)), np.zeros((num_gt, 4))
    d, g = np.zeros(num_det), np.zeros(num_gt)
    assert (match_detections(det, d, d, d, gt, g, g) == -1).all()


def test_empty_boxes_match_nothing():
    point = np.array([[5.0, 5.0, 5.0, 5.0]])
    zero = np.zeros(1)
    assert (match_detections(point, zero, zero, zero, point, zero, zero) == -1).all()
    assert paired_iou(point, point)[0] == 0


def test_order_of_thresholds_and_of_equal_scores():
    """Thresholds may come in any order; of equal scores the one given first goes first."""
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 6]])  # overlaps with the first: 1, 0.9, 0.6
    same, zero = np.full(2, 0.5), np.zeros(2)
    for order in ([0.5, 0.95, 0.8], [0.95, 0.5, 0.8], [0.95, 0.8, 0.5]):
        args = boxes[[2, 1]], same, zero, zero, boxes[:1], zero[:1], zero[:1]
        found = match_detections(*args, thresholds=np.array(order))
        claimed = {0.5: [0, -1], 0.8: [-1, 0], 0.95: [-1, -1]}
        assert found.T.tolist() == [claimed[threshold] for threshold in order]
    many = np.repeat(boxes[1:2], 200, axis=0)  # more than a sort keeps in order by chance
    scores = np.tile([0.5, 0.75], 100)
    found = match_detections(many, scores, *[np.zeros(200)] * 2, boxes[:1], zero[:1], zero[:1])
    assert (found[1, :9] == 0).all() and (np.delete(found, 1, axis=0) == -1).all()  # overlap 0.9


@pytest.mark.parametrize("thresholds", [[0.5], [0.25, 0.5], [0.5, 0.75]])
def test_an_overlap_of_exactly_a_threshold_counts(thresholds):
    box, half, zero = np.array([[0.0, 0, 8, 8]]), np.array([[0.0, 0, 8, 4]]), np.zeros(1)
    found = match_detections(box, zero, zero, zero, half, zero, zero, thresholds=np.array(thresholds))
    assert found[0].tolist() == [0 if threshold <= 0.5 else -1 for threshold in thresholds]


def test_of_equal_scores_the_first_wins_in_every_image():
    """Four detections at the same place in each of 500 images: the first with the highest score claims the object."""
    scores = np.random.default_rng(0).choice([0.25, 0.5, 0.75], (500, 4))
    image, zero = np.arange(2000) // 4, np.zeros(2000)
    det, gt = np.tile([0.0, 0, 8, 8], (2000, 1)), np.tile([0.0, 0, 8, 8], (500, 1))
    found = match_detections(det, scores.ravel(), zero, image, gt, zero[:500], np.arange(500))
    winners = [4 * i + row.index(max(row)) for i, row in enumerate(scores.tolist())]
    assert np.flatnonzero(found[:, 0] >= 0).tolist() == winners
