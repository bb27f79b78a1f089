"""Areas to ignore in the metrics, against pycocotools' crowds."""

from __future__ import annotations

import numpy as np
import pytest

from coco_reference import with_pycocotools
from eyas.metrics import IOU_THRESHOLDS, ap_per_class, match_detections
from eyas.metrics.coco import coco_dataset, coco_detections, coco_numbers
from eyas.metrics.confusion import ConfusionMatrix
from eyas.metrics.detection import DetMetrics
from eyas.metrics.extra import class_curves, f1_at, match_sizes
from eyas.metrics.matching import excused

NAMES = {0: "cat", 1: "dog", 2: "owl"}
KINDS = np.array([[True, True, True], [False, True, False]])


def scene(seed, images=20, objects=6, areas=3):
    """Jittered copies of the truth, strays, and areas of which some lie where strays do."""
    rng = np.random.default_rng(seed)
    count = images * objects
    corner, size = rng.uniform(0, 400, (count, 2)), np.exp(rng.uniform(np.log(12), np.log(160), (count, 2)))
    gt = np.concatenate([corner, corner + size], axis=1)
    gt_cls, gt_image = rng.integers(0, 3, count), rng.integers(0, images, count)
    det = np.repeat(gt, 3, axis=0) + rng.normal(0, 6, (3 * count, 4))
    det[:, 2:] = np.maximum(det[:, 2:], det[:, :2] + 1)
    det_cls, det_image = rng.integers(0, 3, 3 * count), np.repeat(gt_image, 3)
    scores = rng.permutation(3 * count) / (3 * count + 1)
    near = rng.integers(0, 3 * count, images * areas)
    places = det[near] + rng.normal(0, 20, (len(near), 4))
    places[:, 2:] = np.maximum(places[:, 2:], places[:, :2] + 5)
    found, truth = (det, scores, det_cls, det_image), (gt, gt_cls, gt_image)
    return found, truth, (places, rng.integers(0, 2, len(near)), det_image[near]), images


def by_class(areas):
    places, kind, image = areas
    area, cls = np.nonzero(KINDS[kind])
    return places[area], cls, image[area]


@pytest.mark.parametrize("seed", range(3))
def test_twelve_numbers_equal_pycocotools(seed):
    found, truth, areas, images = scene(seed)
    dataset = coco_dataset(*truth, num_images=images, names=NAMES, crowds=by_class(areas))
    detections = coco_detections(*found)
    reference = with_pycocotools(dataset, detections).stats
    np.testing.assert_allclose(list(coco_numbers(dataset, detections).values()), reference, rtol=0, atol=1e-6)
    without = with_pycocotools(coco_dataset(*truth, num_images=images, names=NAMES), detections).stats
    assert reference[0] > without[0] + 1e-3  # the areas matter here


@pytest.mark.parametrize("seed", range(3))
def test_who_is_excused_is_who_pycocotools_ignores(seed):
    """For each image, class and threshold: hits and ignored detections, counted over all sizes."""
    found, truth, areas, images = scene(seed)
    right = match_detections(*found, *truth) >= 0
    pardoned = excused(found[0], found[2], found[3], right, *areas, KINDS)
    dataset = coco_dataset(*truth, num_images=images, names=NAMES, crowds=by_class(areas))
    evaluation = with_pycocotools(dataset, coco_detections(*found))
    everything = [e for e in evaluation.evalImgs[: len(NAMES) * 4 * images] if e and e["aRng"] == [0, 1e10]]
    ignored = sum(e["dtIgnore"].sum(1) for e in everything)
    hits = sum(((e["dtMatches"] > 0) & ~e["dtIgnore"].astype(bool)).sum(1) for e in everything)
    assert ignored[0] > 20
    np.testing.assert_array_equal(pardoned.sum(0), ignored)
    np.testing.assert_array_equal(right.sum(0), hits)


def collected(found, truth, pardoned, right):
    metrics = DetMetrics(NAMES)
    files = [f"{i}.jpg" for i in range(20)]
    rows = dict(zip(("pred_box", "conf", "pred_cls", "pred_img"), found, strict=True))
    true = dict(zip(("target_box", "target_cls", "target_img"), truth, strict=True))
    metrics.update(tp=right, excused=pardoned, image_files=files, **rows, **true)
    metrics.process()
    return metrics


def test_metrics_are_those_of_a_detector_that_says_nothing_there():
    """At one threshold, where it is one set of detections that is left out."""
    found, truth, areas, _ = scene(5)
    right = match_detections(*found, *truth) >= 0
    at_half = excused(found[0], found[2], found[3], right, *areas, KINDS)[:, :1]
    pardoned = np.repeat(at_half, 10, axis=1) & ~right[:, :1]
    left = ~pardoned[:, 0]
    assert 0.5 < left.mean() < 0.98
    told = collected(found, truth, pardoned, right)
    silent = collected([part[left] for part in found], truth, None, right[left])
    for name in ("p", "r", "f1", "all_ap", "p_curve", "r_curve", "prec_values"):
        np.testing.assert_array_equal(getattr(told.box, name), getattr(silent.box, name), err_msg=name)
    np.testing.assert_array_equal(f1_at(told, 0.4), f1_at(silent, 0.4))
    assert told.box.image_metrics == silent.box.image_metrics
    for ours, theirs in zip(class_curves(told), class_curves(silent), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    ignored = match_sizes(told.stats, 0, 1e10)[1]
    assert (ignored[pardoned & ~match_sizes(told.stats, 0, 1e10)[0]]).all()


def test_precision_is_counted_without_those_who_are_excused_at_its_threshold():
    found, truth, areas, _ = scene(6)
    right = match_detections(*found, *truth) >= 0
    pardoned = excused(found[0], found[2], found[3], right, *areas, KINDS)
    assert (pardoned.sum(0)[:-1] > pardoned.sum(0)[1:]).any()
    together = ap_per_class(right, found[1], found[2], truth[1], pardoned).ap
    for t in range(len(IOU_THRESHOLDS)):
        left = ~pardoned[:, t]
        alone = ap_per_class(right[left], found[1][left], found[2][left], truth[1]).ap
        np.testing.assert_array_equal(together[:, t], alone[:, t])


def test_a_class_of_which_everything_found_is_excused_has_no_false_alarm():
    result = ap_per_class(
        np.zeros((2, 10), bool), np.array([0.9, 0.8]), np.zeros(2), np.zeros(1), np.ones((2, 10), bool)
    )
    assert result.ap.sum() == 0
    assert result.p.tolist() == [0.0]


def test_an_area_of_no_image_of_the_detections_excuses_nobody():
    box = np.array([[0, 0, 10, 10.0]])
    nobody = excused(box, np.zeros(1), np.ones(1), np.zeros((1, 10), bool), box, np.zeros(1, int), np.zeros(1), KINDS)
    assert not nobody.any()
    assert nobody.shape == (1, len(IOU_THRESHOLDS))


def test_the_confusion_matrix_counts_an_excused_detection_only_if_it_is_paired():
    matrix = ConfusionMatrix(NAMES)
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60.0]])
    matrix.update(
        boxes, np.ones(2), np.array([0, 1]), np.zeros(2), boxes[:1], np.array([2]), np.zeros(1), np.ones(2, bool)
    )
    assert matrix.matrix[0, 2] == 1
    assert matrix.matrix.sum() == 1
