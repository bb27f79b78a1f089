"""COCO's numbers against pycocotools, and the built-in AP against COCO's where the definitions agree."""

from __future__ import annotations

import numpy as np
import pytest

from coco_reference import with_pycocotools
from eyas.metrics import IOU_THRESHOLDS, ap_per_class, match_detections
from eyas.metrics.coco import COCO_KEYS, coco_dataset, coco_detections, coco_numbers

pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
NAMES = {0: "cat", 1: "dog", 2: "owl"}


def scene(seed, images=30, objects=8, noise=3.0):
    """Jittered copies of the truth with misses, class errors and strays; distinct scores, sizes across COCO's bins."""
    rng = np.random.default_rng(seed)
    count = images * objects
    corner, size = rng.uniform(0, 400, (count, 2)), np.exp(rng.uniform(np.log(12), np.log(160), (count, 2)))
    gt = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    gt_cls, gt_image = rng.integers(0, 3, count), rng.integers(0, images, count)
    det = np.repeat(gt, 2, axis=0) + rng.normal(0, noise, (2 * count, 4)).astype(np.float32)
    det[:, 2:] = np.maximum(det[:, 2:], det[:, :2] + 1)
    det_cls = np.where(rng.random(2 * count) < 0.85, np.repeat(gt_cls, 2), rng.integers(0, 3, 2 * count))
    scores = rng.permutation(2 * count) / (2 * count + 1)
    keep = rng.random(2 * count) < 0.7
    return (det[keep], scores[keep], det_cls[keep], np.repeat(gt_image, 2)[keep]), (gt, gt_cls, gt_image), images


def coco_precision(tp, num_targets):
    """COCO's AP of one class and threshold from our matches: mean of the envelope read at 101 recalls."""
    hits = np.cumsum(tp)
    recall, precision = hits / num_targets, hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return np.where(at < len(envelope), envelope[np.minimum(at, len(envelope) - 1)], 0).mean()


@pytest.mark.parametrize("seed", range(3))
def test_twelve_numbers_equal_pycocotools(seed):
    found, truth, images = scene(seed)
    dataset = coco_dataset(*truth, num_images=images, names=NAMES)
    detections = coco_detections(*found)
    numbers = coco_numbers(dataset, detections)
    reference = with_pycocotools(dataset, detections).stats
    assert list(numbers) == list(COCO_KEYS)
    np.testing.assert_allclose(list(numbers.values()), reference, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_matching_is_coco_s_matching(seed):
    """Same highest recall per class and threshold, and COCO's precision follows from our matches to 1e-9."""
    (det, scores, cls, image), (gt, gt_cls, gt_image), images = scene(seed)
    tp = match_detections(det, scores, cls, image, gt, gt_cls, gt_image) >= 0
    dataset = coco_dataset(gt, gt_cls, gt_image, num_images=images, names=NAMES)
    evaluation = with_pycocotools(dataset, coco_detections(det, scores, cls, image)).eval
    order = np.argsort(-scores)
    for c in NAMES:
        of_class = order[cls[order] == c]
        targets = (gt_cls == c).sum()
        for t in range(len(IOU_THRESHOLDS)):
            assert tp[of_class, t].sum() / targets == pytest.approx(evaluation["recall"][t, c, 0, -1], abs=1e-9)
            expected = evaluation["precision"][t, :, c, 0, -1].mean()
            assert coco_precision(tp[of_class, t], targets) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("images", "tolerance"), [(30, 0.006), (600, 0.002)])
def test_built_in_ap_differs_by_its_integral_only(images, tolerance):
    """Trapezoid over interpolated precision against a mean of read values.

    In a large set the gap is close to 0.01 AP - 0.005 (the ends of the trapezoid weigh half): 0 at AP 0.5, -0.005 at 1.
    """
    (det, scores, cls, image), (gt, gt_cls, gt_image), images = scene(0, images=images)
    tp = match_detections(det, scores, cls, image, gt, gt_cls, gt_image) >= 0
    built_in = ap_per_class(tp, scores, cls, gt_cls).ap
    dataset = coco_dataset(gt, gt_cls, gt_image, num_images=images, names=NAMES)
    numbers = coco_numbers(dataset, coco_detections(det, scores, cls, image))
    for ours, name in ((built_in, "AP"), (built_in[:, 0], "AP50"), (built_in[:, 5], "AP75")):
        expected = numbers[name] + 0.01 * numbers[name] - 0.005
        assert ours.mean() == pytest.approx(expected, abs=tolerance), name
        assert ours.mean() == pytest.approx(numbers[name], abs=0.006), name


def test_no_detections_and_no_ground_truth():
    (det, scores, cls, image), (gt, gt_cls, gt_image), images = scene(0)
    dataset = coco_dataset(gt, gt_cls, gt_image, num_images=images, names=NAMES)
    assert set(coco_numbers(dataset, []).values()) == {0.0}
    small = coco_dataset(np.array([[0, 0, 5, 5.0]]), np.array([0]), np.array([0]), num_images=1, names=NAMES)
    numbers = coco_numbers(small, [])
    assert (numbers["APs"], numbers["APm"], numbers["ARl"], numbers["AP"]) == (0, -1, -1, 0)
    empty = coco_dataset(gt[:0], gt_cls[:0], gt_image[:0], num_images=images, names=NAMES)
    assert set(coco_numbers(empty, coco_detections(det, scores, cls, image)).values()) == {-1.0}
