from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.metrics.average_precision import CONFIDENCE_GRID, SMOOTHING_POINTS, ap_per_class, average_precision, smooth
from eyas.metrics.matching import match_detections

PARITY = Path(__file__).resolve().parents[3].parent / "shared" / "parity" / "cases" / "metrics.npz"

# 38 detections of the parity case share the score 1.0, and AP depends on which goes first. The reference used an
# unstable sort, so its order cannot be computed, only found: per class, the order of the tied rows under which all ten
# of its APs come out. It is unique up to rows that are correct at the same thresholds.
TIED_ORDER = [
    *[67, 58, 199, 194, 120, 23],
    *[3, 37, 47, 212, 231, 142, 32, 253],
    *[4, 39, 41, 59, 30, 153, 176, 254, 131, 193, 56, 219],
    *[42, 104, 80, 92, 72, 238, 121, 125, 107, 165, 13],
]


@pytest.mark.skipif(not PARITY.is_file(), reason="the parity cases are not beside this checkout")
def test_parity_with_the_reference():
    case = np.load(PARITY)
    gt, det = case["gt"], case["det"]
    tp = match_detections(det[:, 1:5], det[:, 5], det[:, 6], det[:, 0], gt[:, 1:5], gt[:, 5], gt[:, 0]) >= 0
    order = np.concatenate([TIED_ORDER, np.setdiff1d(np.arange(len(det)), TIED_ORDER)])
    result = ap_per_class(tp[order], det[order, 5], det[order, 6], gt[:, 5])
    np.testing.assert_array_equal(result.ap_class_index, case["ap_class_index"])
    for name, values in (("precision", result.p), ("recall", result.r), ("f1", result.f1), ("ap", result.ap)):
        np.testing.assert_allclose(values, case[name], rtol=0, atol=1e-6, err_msg=name)


def test_golden_vector_of_the_spec():
    k = np.arange(12)
    tp = np.array([[((7 * i + 3 * j) % 5) < 3 - j // 4 for j in range(10)] for i in k])
    result = ap_per_class(tp, 0.95 - 0.06 * k, k % 2, np.array([0] * 4 + [1] * 5 + [2]))
    np.testing.assert_array_equal(result.ap_class_index, [0, 1, 2])
    np.testing.assert_allclose(result.p, [0.666667, 0.666667, 0], atol=1e-6)
    np.testing.assert_allclose(result.r, [1.0, 0.8, 0], atol=1e-6)
    np.testing.assert_allclose(result.f1, [0.8, 0.727273, 0], atol=1e-6)
    expected = [
        [0.745, 0.55875, 0.828333, 0.447, 0.33, 0.495, 0.2475, 0.62, 0.049, 0.081667],
        [0.728333, 0.595, 0.44625, 0.661667, 0.158, 0.263333, 0.395, 0.1975, 0.0975, 0.039],
        [0] * 10,
    ]
    np.testing.assert_allclose(result.ap, expected, atol=1e-6)


def test_single_curve_of_the_spec():
    assert average_precision(np.array([0.25, 0.25, 0.5, 0.75]), np.array([1, 0.5, 0.6667, 0.75])) == pytest.approx(0.62)


def test_perfect_and_useless_detections():
    targets = np.array([0, 0, 1])
    perfect = ap_per_class(np.ones((3, 10), bool), np.array([0.9, 0.8, 0.7]), targets, targets)
    np.testing.assert_allclose(perfect.ap, 0.995)  # the definition's ceiling: its curve ends at (recall 1, precision 0)
    np.testing.assert_allclose(perfect.f1, 1)
    useless = ap_per_class(np.zeros((3, 10), bool), np.array([0.9, 0.8, 0.7]), targets, targets)
    np.testing.assert_allclose(useless.ap, 0)


@st.composite
def one_class(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores on the grid of the curves, all different, with hits at two thresholds; and the number of objects."""
    places = draw(st.lists(st.integers(1, 998), min_size=1, max_size=12, unique=True))
    hits = draw(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=len(places), max_size=len(places)))
    tp = np.array(hits, bool).reshape(-1, 2)
    return np.array(places), tp, int(tp.sum(axis=0).max()) + draw(st.integers(0, 3)) or 1


@settings(max_examples=60, deadline=None)
@given(one_class())
def test_curves_and_areas_counted_one_detection_after_the_other(case) -> None:
    places, tp, targets = case
    result = ap_per_class(tp, CONFIDENCE_GRID[places], np.zeros(len(places)), np.zeros(targets))
    for place in range(1000):
        kept = places >= place
        if place in places:
            hits = tp[kept, 0].sum()
            assert result.p_curve[0, place] == pytest.approx(hits / kept.sum())
            assert result.r_curve[0, place] == pytest.approx(hits / targets)
        elif not kept.any():  # above the best score nothing is found, and nothing found is wrong
            assert (result.p_curve[0, place], result.r_curve[0, place]) == (1, 0)
        elif kept.all():
            assert result.p_curve[0, place] == pytest.approx(tp[:, 0].sum() / len(tp))
            assert result.r_curve[0, place] == pytest.approx(tp[:, 0].sum() / targets)
    p, r = result.p_curve[0], result.r_curve[0]
    np.testing.assert_allclose(result.f1_curve[0], [2 * a * b / (a + b) if a + b else 0.0 for a, b in zip(p, r)])
    order = np.argsort(-places)
    for t in range(2):
        hits = np.cumsum(tp[order, t])
        recall, precision = hits / targets, hits / np.arange(1, len(hits) + 1)
        assert result.ap[0, t] == pytest.approx(average_precision(recall, precision), abs=1e-12)
        assert result.ap[0, t] == pytest.approx(plain_area(recall, precision, 101), abs=1e-9)


def plain_area(recall: np.ndarray, precision: np.ndarray, points: int) -> float:
    """Trapezoids under the best precision at each recall or a higher one, joined by lines from (0, 1)."""
    xs, ys = [0.0], [1.0]
    for i in range(len(recall)):
        xs.append(float(recall[i]))
        ys.append(max(float(v) for v in precision[i:]))

    def height(at: float) -> float:
        if at > xs[-1] or (at == xs[-1] and at == 1.0):
            return 0.0  # the curve falls to 0 behind its last point, and so it does at recall 1
        last = max(i for i, x in enumerate(xs) if x <= at)
        if last + 1 == len(xs) or xs[last] == at:
            return 0.0 if last + 1 == len(xs) else ys[last]
        share = (at - xs[last]) / (xs[last + 1] - xs[last])
        return ys[last] + share * (ys[last + 1] - ys[last])

    heights = [height(float(x)) for x in np.linspace(0, 1, points)]
    return sum((a + b) / 2 for a, b in itertools.pairwise(heights)) / (points - 1)


def test_the_table_is_read_where_the_smoothed_mean_f1_is_highest() -> None:
    rng = np.random.default_rng(3)
    tp, conf, cls = rng.random((80, 2)) < 0.6, rng.random(80), rng.integers(0, 3, 80)
    result = ap_per_class(tp, conf, cls, rng.integers(0, 3, 70))
    mean = [float(np.mean(column)) for column in result.f1_curve.T]
    inside = [mean[min(max(j, 0), 999)] for j in range(-50, 1050)]
    best = int(np.argmax([sum(inside[i : i + 101]) for i in range(1000)]))
    assert result.best_conf == CONFIDENCE_GRID[best]
    for row, curve in ((result.p, result.p_curve), (result.r, result.r_curve), (result.f1, result.f1_curve)):
        np.testing.assert_array_equal(row, curve[:, best])


def test_order_of_detections_does_not_matter():
    rng = np.random.default_rng(1)
    tp, conf, cls = rng.random((60, 10)) < 0.5, rng.random(60), rng.integers(0, 4, 60)
    targets, shuffled = rng.integers(0, 4, 40), rng.permutation(60)
    first = ap_per_class(tp, conf, cls, targets)
    second = ap_per_class(tp[shuffled], conf[shuffled], cls[shuffled], targets)
    np.testing.assert_array_equal(first.ap, second.ap)
    np.testing.assert_array_equal(first.f1_curve, second.f1_curve)


def test_smoothing_keeps_constants_and_equals_a_plain_mean():
    np.testing.assert_allclose(smooth(np.full(300, 0.4), SMOOTHING_POINTS), 0.4)
    values = np.random.default_rng(0).random(300)
    half = SMOOTHING_POINTS // 2
    assert smooth(values, SMOOTHING_POINTS)[150] == pytest.approx(values[150 - half : 150 + half + 1].mean())
