from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eyas.metrics.average_precision import SMOOTHING_POINTS, ap_per_class, average_precision, smooth
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
