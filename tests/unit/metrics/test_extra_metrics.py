"""Shipped metrics against references that share no code with them: loops, scikit-learn, pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coco_reference import with_pycocotools
from eyas.metrics import DetMetrics, match_detections
from eyas.metrics.coco import coco_dataset, coco_detections, coco_numbers
from eyas.metrics.extra import (
    F1,
    METRIC_NAMES,
    METRICS,
    SIZES,
    APBySize,
    APPerClass,
    RecallAtPrecision,
    ap_of_sizes,
    class_column,
    match_sizes,
    metric_named,
    metric_with_column,
    recall_at_precision,
)

NAMES = {0: "cat", 1: "dog", 2: "owl"}
THRESHOLDS = np.linspace(0.5, 0.95, 10)


def collected(found, truth, images, names=NAMES, batches=1):
    """A processed `DetMetrics` of (boxes, scores, cls, image) and (boxes, cls, image)."""
    metrics = DetMetrics(names)
    for part in np.array_split(np.arange(images), batches):
        det, gt = np.isin(found[3], part), np.isin(truth[2], part)
        one, real = [a[det] for a in found], [a[gt] for a in truth]
        metrics.update(
            tp=match_detections(*one, *real) >= 0,
            conf=one[1],
            pred_cls=one[2],
            pred_img=one[3] - part[0],
            target_cls=real[1],
            target_img=real[2] - part[0],
            image_files=[f"{i}.jpg" for i in part],
            pred_box=one[0],
            target_box=real[0],
        )
    metrics.process()
    return metrics


def scene(seed, images=20, objects=8, low=10, high=180):
    """Jittered copies of the truth with misses, class errors and strays; sizes across COCO's limits."""
    rng = np.random.default_rng(seed)
    count = images * objects
    corner, size = rng.uniform(0, 300, (count, 2)), np.exp(rng.uniform(np.log(low), np.log(high), (count, 2)))
    gt = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    gt_cls, gt_image = rng.integers(0, 3, count), rng.integers(0, images, count)
    det = np.repeat(gt, 3, axis=0) + rng.normal(0, 4, (3 * count, 4)).astype(np.float32)
    det[:, 2:] = np.maximum(det[:, 2:], det[:, :2] + 1)
    det_cls = np.where(rng.random(3 * count) < 0.85, np.repeat(gt_cls, 3), rng.integers(0, 3, 3 * count))
    scores = (rng.permutation(3 * count) / (3 * count + 1)).astype(np.float32)
    keep = rng.random(3 * count) < 0.6
    return (det[keep], scores[keep], det_cls[keep], np.repeat(gt_image, 3)[keep]), (gt, gt_cls, gt_image), images


# -- by size -----------------------------------------------------------------------------------------------------------
def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def sized_reference(found, truth, low, high):
    """COCO's evaluateImg in words: one detection after the other, ground truth of the size first."""
    det, scores, cls, image = found
    gt, gt_cls, gt_image = truth
    area = lambda b: (float(b[2]) - float(b[0])) * (float(b[3]) - float(b[1]))  # noqa: E731
    inside = [low <= area(b) <= high for b in gt]
    tp, ignored = np.zeros((len(det), 10), bool), np.zeros((len(det), 10), bool)
    for t, threshold in enumerate(THRESHOLDS):
        claimed = set()
        for d in np.argsort(-scores, kind="stable"):
            match = -1
            for wanted in (True, False):
                best = threshold
                for g in range(len(gt)):
                    same = gt_image[g] == image[d] and gt_cls[g] == cls[d] and inside[g] == wanted
                    overlap = iou(det[d].astype(float), gt[g].astype(float)) if same and g not in claimed else 0.0
                    if overlap > best or (match < 0 and overlap == best):
                        best, match = overlap, g
                if match >= 0:
                    break
            if match >= 0:
                claimed.add(match)
                tp[d, t], ignored[d, t] = inside[match], not inside[match]
            else:
                ignored[d, t] = not low <= area(det[d]) <= high
    return tp, ignored, np.array(inside, bool)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(2))
def test_matching_by_size_equals_the_loop(size, seed):
    found, truth, images = scene(seed, images=6)
    metrics = collected(found, truth, images)
    expected = sized_reference(found, truth, *SIZES[size])
    for ours, reference in zip(match_sizes(metrics.stats, *SIZES[size]), expected, strict=True):
        np.testing.assert_array_equal(ours, reference)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_matching_by_size_on_a_coarse_grid(data):
    """Overlapping objects of different sizes are common here, and so are equal overlaps and areas on the limit."""

    def boxes(count):
        rows = data.draw(st.lists(st.tuples(*[st.integers(0, 3)] * 2, *[st.integers(1, 4)] * 2), max_size=count))
        xywh = 16 * np.array(rows, np.float32).reshape(-1, 4)
        ids = data.draw(st.lists(st.integers(0, 1), min_size=len(rows), max_size=len(rows)))
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        return corners, np.array(ids, int), np.zeros(len(rows), int)

    (det, cls, image), truth = boxes(10), boxes(6)
    scores = np.linspace(0.9, 0.1, len(det)).astype(np.float32)
    found = det, scores, cls, image
    metrics = collected(found, truth, 1)
    for limits in SIZES.values():
        tp, ignored, counted = match_sizes(metrics.stats, *limits)
        expected_tp, expected_ignored, expected_counted = sized_reference(found, truth, *limits)
        np.testing.assert_array_equal(tp, expected_tp)
        np.testing.assert_array_equal(ignored, expected_ignored)
        np.testing.assert_array_equal(counted, expected_counted)


@pytest.mark.parametrize("seed", range(2))
def test_matching_by_size_is_that_of_pycocotools(seed):
    """COCO's precision by class, size and threshold follows from our matches."""
    found, truth, images = scene(seed)
    metrics = collected(found, truth, images)
    reference = with_pycocotools(coco_dataset(*truth, num_images=images, names=NAMES), coco_detections(*found)).eval
    order = np.argsort(-found[1])
    for a, limits in enumerate(SIZES.values(), 1):
        tp, ignored, counted = match_sizes(metrics.stats, *limits)
        for c in NAMES:
            targets = (counted & (truth[1] == c)).sum()
            rows = order[found[2][order] == c]
            for t in range(10):
                hits = np.cumsum(tp[rows, t][~ignored[rows, t]])
                precision = hits / np.arange(1, len(hits) + 1)
                envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
                at = np.searchsorted(hits / targets, np.linspace(0, 1, 101), side="left")
                assert envelope[at].mean() == pytest.approx(reference["precision"][t, :, c, a, -1].mean(), abs=1e-9)


def test_ap_by_size_is_coco_s_but_for_the_integral():
    pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    found, truth, images = scene(0, images=300)
    metrics = collected(found, truth, images, batches=7)
    reference = coco_numbers(coco_dataset(*truth, num_images=images, names=NAMES), coco_detections(*found))
    for size in SIZES:
        value = APBySize(size)(metrics)[f"metrics/AP_{size}(B)"]
        assert value == pytest.approx(reference[f"AP{size[0]}"], abs=0.006), size


def test_all_sizes_at_once_are_the_plain_ap():
    found, truth, images = scene(3)
    metrics = collected(found, truth, images)
    classes, ap = ap_of_sizes(metrics, 0, 1e10)
    np.testing.assert_array_equal(classes, metrics.box.ap_class_index)
    np.testing.assert_allclose(ap, metrics.box.all_ap, atol=1e-12)


def test_a_size_without_objects_is_nan_and_missing_boxes_are_an_error():
    found, truth, images = scene(0, low=40, high=80)
    metrics = collected(found, truth, images)
    assert np.isnan(metric_named("ap_small")(metrics)["metrics/AP_small(B)"])
    assert metric_named("ap_medium")(metrics)["metrics/AP_medium(B)"] > 0.1
    bare = DetMetrics(NAMES)
    bare.update(
        tp=np.ones((1, 10), bool),
        conf=np.ones(1),
        pred_cls=np.zeros(1),
        pred_img=np.zeros(1),
        target_cls=np.zeros(1),
        target_img=np.zeros(1),
        image_files=["a.jpg"],
    )
    bare.process()
    with pytest.raises(ValueError, match="pred_box"):
        metric_named("ap_large")(bare)


# -- F1 ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("conf", [0.0, 0.25, 0.6])
def test_f1_at_a_confidence_equals_scikit_learn(conf):
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    found, truth, images = scene(1)
    metrics = collected(found, truth, images)
    matched = match_detections(*found, *truth)[:, 0]
    values = F1(conf=conf)(metrics)
    for c, name in NAMES.items():
        shown = (found[1] >= np.float32(conf)) & (found[2] == c)
        hit = matched[shown] >= 0
        missed = (truth[1] == c).sum() - hit.sum()
        actual = np.concatenate([hit, np.ones(missed)])
        predicted = np.concatenate([np.ones(len(hit)), np.zeros(missed)])
        key = f"metrics/F1@iou0.5_conf{conf:g}({name})"
        assert values[key] == pytest.approx(sklearn.f1_score(actual, predicted), abs=1e-12)
    mean = np.mean([values[f"metrics/F1@iou0.5_conf{conf:g}({name})"] for name in NAMES.values()])
    assert values[f"metrics/F1@iou0.5_conf{conf:g}(B)"] == pytest.approx(mean)


def four_classes():
    """One class found perfectly, one at F1 0.8, two not at all, and a fifth without ground truth."""
    names = dict(enumerate(("good", "fair", "lost", "gone", "absent")))
    metrics = DetMetrics(names)
    metrics.update(
        tp=np.repeat(np.array([True, True, True]).reshape(-1, 1), 10, axis=1),
        conf=np.array([0.9, 0.9, 0.9]),
        pred_cls=np.array([0, 1, 1]),
        pred_img=np.zeros(3, int),
        target_cls=np.array([0, 1, 1, 1, 2, 3]),
        target_img=np.zeros(6, int),
        image_files=["a.jpg"],
    )
    metrics.process()
    return metrics


def test_classes_with_zero_f1_count_in_the_mean():
    """The naive mean over positive values would be 0.9."""
    values = metric_named("f1")(four_classes())
    assert values["metrics/F1@iou0.5_best(B)"] == pytest.approx((1 + 0.8 + 0 + 0) / 4)
    assert values["metrics/F1@iou0.5_best(fair)"] == pytest.approx(0.8)
    assert values["metrics/F1@iou0.5_best(lost)"] == 0
    assert np.isnan(values["metrics/F1@iou0.5_best(absent)"])


def test_f1_goes_with_the_precision_and_recall_of_the_table():
    metrics = collected(*scene(2))
    assert metric_named("f1")(metrics)["metrics/F1@iou0.5_best(B)"] == metrics.box.f1.mean()
    best = metrics.box.f1_curve.mean(axis=0).max()
    assert metrics.box.f1.mean() == pytest.approx(best, abs=0.02)  # the curve is smoothed before its top is found


# -- recall at a precision ---------------------------------------------------------------------------------------------
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.3, 0.3, 0.5, 0.9])), max_size=25),
    st.integers(0, 5),
    st.integers(1, 100),
)
def test_recall_at_precision_equals_every_threshold_tried(rows, missed, percent):
    rows = sorted(rows, key=lambda row: -row[1])
    tp, conf = np.array([r[0] for r in rows], bool), np.array([r[1] for r in rows], np.float32)
    targets = int(tp.sum()) + missed
    if targets == 0:
        return
    best = 0.0
    for threshold in {c for _, c in rows}:
        shown = [hit for hit, c in rows if c >= threshold]
        if sum(shown) * 100 >= percent * len(shown):
            best = max(best, sum(shown) / targets)
    assert recall_at_precision(tp, conf, targets, percent) == pytest.approx(best)


def test_recall_at_precision_of_a_split():
    found, truth, images = scene(4)
    metrics = collected(found, truth, images)
    tp = match_detections(*found, *truth)[:, 0] >= 0
    expected = []
    for c in NAMES:
        rows = found[2] == c
        options = [
            (tp[rows & (found[1] >= s)].mean(), tp[rows & (found[1] >= s)].sum() / (truth[1] == c).sum())
            for s in found[1][rows]
        ]
        expected.append(max((r for p, r in options if p >= 0.6), default=0.0))
    assert 0 < np.mean(expected) < 1
    assert RecallAtPrecision(60)(metrics)["metrics/recall@iou0.5_p60(B)"] == pytest.approx(np.mean(expected))


# -- names and columns -------------------------------------------------------------------------------------------------
ALL = [*METRICS, "recall_at_p90", "f1_at_conf25"]


@pytest.mark.parametrize("name", ALL)
def test_columns_are_known_before_and_filled_after(name):
    metrics, metric = collected(*scene(0)), metric_named(name)
    values = metric(metrics)
    assert list(values) == metric.columns(NAMES)
    assert all(type(value) is float and 0 <= value <= 1 for value in values.values())
    assert metric_with_column(metric.columns(NAMES)[0], NAMES) == metric
    assert metric == metric_named(name)


@pytest.mark.parametrize("name", ALL)
def test_empty_splits_are_measured_too(name):
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int), np.zeros(0, int)
    found, truth, images = scene(0)
    for one, real in ((nothing, truth), (found, (nothing[0], nothing[2], nothing[3]))):
        values = metric_named(name)(collected(one, real, images))
        assert list(values) == metric_named(name).columns(NAMES)
        assert all(np.isnan(v) or v == 0 for v in values.values())


def test_column_names_state_iou_and_confidence():
    assert F1().columns(NAMES)[:2] == ["metrics/F1@iou0.5_best(B)", "metrics/F1@iou0.5_best(cat)"]
    assert F1(conf=0.25).columns(NAMES)[0] == "metrics/F1@iou0.5_conf0.25(B)"
    assert metric_named("f1_at_conf25") == F1(conf=0.25)
    assert RecallAtPrecision().columns(NAMES) == ["metrics/recall@iou0.5_p90(B)"]
    assert class_column("map", "dog", NAMES) == "metrics/mAP50-95(dog)"
    assert class_column("map", "cow", NAMES) is None


def test_classes_of_one_name_keep_columns_of_their_own():
    names = {1: "cat", 0: "cat", 2: "B"}
    columns = F1().columns(names)
    assert columns[1:] == [f"metrics/F1@iou0.5_best({label})" for label in ("cat #0", "cat #1", "B #2")]
    assert len(set(APPerClass().columns(names))) == 6


def test_per_class_ap_is_that_of_the_summary():
    metrics = collected(*scene(0))
    values = metric_named("ap_per_class")(metrics)
    for row in metrics.summary(decimals=12):
        assert values[f"metrics/mAP50({row['Class']})"] == pytest.approx(row["mAP50"])
        assert values[f"metrics/mAP50-95({row['Class']})"] == pytest.approx(row["mAP50-95"])


@pytest.mark.parametrize(
    ("name", "near"),
    [("f2", "f1"), ("ap_smal", "ap_small"), ("recall_at_90", "recall_at_p90"), ("AP_LARGE", "ap_large")],
)
def test_an_unknown_name_names_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"Did you mean '{near}'") as error:
        metric_named(name)
    assert all(known in str(error.value) for known in METRIC_NAMES)


@pytest.mark.parametrize("name", ["recall_at_p0", "recall_at_p101", "f1_at_conf100", ""])
def test_out_of_range_names_are_unknown(name):
    with pytest.raises(ValueError, match="there is no metric"):
        metric_named(name)


@pytest.mark.parametrize("make", [lambda: F1(conf=1.0), lambda: RecallAtPrecision(0), lambda: APBySize("tiny")])
def test_impossible_arguments(make):
    with pytest.raises(ValueError, match=r"\("):
        make()
