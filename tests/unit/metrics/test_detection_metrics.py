from __future__ import annotations

import json

import numpy as np
import pytest

from eyas.metrics import METRIC_KEYS, DetMetrics, fitness
from eyas.metrics.detection import BoxMetrics, ImageCounts, shortest_unique_names

NAMES = {0: "cat", 1: "dog", 2: "owl"}


def collected(conf, pred_cls, pred_img, target_cls, target_img, files, correct):
    metrics = DetMetrics(NAMES)
    metrics.update(
        tp=np.repeat(np.array(correct, bool).reshape(-1, 1), 10, axis=1),
        conf=np.array(conf, float),
        pred_cls=np.array(pred_cls, int),
        pred_img=np.array(pred_img, int),
        target_cls=np.array(target_cls, int),
        target_img=np.array(target_img, int),
        image_files=files,
    )
    metrics.process()
    return metrics


def test_empty_before_any_run():
    box = BoxMetrics(3)
    for values in (box.p, box.r, box.f1, box.ap, box.ap50, box.ap_class_index):
        assert len(values) == 0
    assert (box.mp, box.mr, box.map50, box.map75, box.map) == (0, 0, 0, 0, 0)
    assert isinstance(box.map, np.float64)
    assert box.maps.tolist() == [0, 0, 0] and box.image_metrics == {} and box.fitness() == 0


def test_no_ground_truth_at_all():
    metrics = collected([0.9], [0], [0], [], [], ["a.jpg", "b.jpg"], [False])
    assert metrics.results_dict == dict.fromkeys([*METRIC_KEYS, "fitness"], 0.0)
    assert metrics.box.image_metrics["a.jpg"] == {"precision": 0, "recall": 0, "f1": 0, "tp": 0, "fp": 1, "fn": 0}
    assert metrics.box.image_metrics["b.jpg"]["f1"] == 1.0  # nothing there, nothing found
    assert metrics.summary() == [] and metrics.to_csv() == ""


def test_no_detections_at_all():
    metrics = collected([], [], [], [0, 2], [0, 0], ["a.jpg"], [])
    assert metrics.box.ap_class_index.tolist() == [0, 2]
    assert metrics.box.ap.tolist() == [0, 0] and metrics.mean_results() == [0, 0, 0, 0]
    assert metrics.box.image_metrics["a.jpg"]["fn"] == 2


def test_nothing_collected():
    assert DetMetrics(NAMES).process()["fitness"] == 0.0


def test_types_shapes_and_derived_values():
    files, correct = ["a.jpg", "b.jpg"], [True, False, True, False]
    metrics = collected([0.9, 0.8, 0.7, 0.6], [0, 0, 2, 1], [0, 1, 1, 1], [0, 0, 2], [0, 1, 1], files, correct)
    box = metrics.box
    assert box.ap_class_index.dtype == np.int64 and box.ap_class_index.tolist() == [0, 2]
    assert box.all_ap.shape == (2, 10) and box.px.shape == (1000,)
    for curve in (box.p_curve, box.r_curve, box.f1_curve, box.prec_values):
        assert curve.shape == (2, 1000)
    assert box.p.dtype == np.float64 and isinstance(box.map50, np.float64)
    np.testing.assert_allclose(box.f1, 2 * box.p * box.r / (box.p + box.r))
    assert box.maps[1] == box.map  # the class without ground truth carries the mean
    assert box.maps[[0, 2]].tolist() == box.ap.tolist()
    assert metrics.nt_per_class.tolist() == [2, 0, 1] and metrics.nt_per_image.tolist() == [2, 0, 1]
    assert metrics.class_result(1) == (box.p[1], box.r[1], box.ap50[1], box.ap[1])
    assert metrics.stats["tp"].shape == (4, 10)
    values = metrics.results_dict
    assert list(values) == [*metrics.keys, "fitness"]
    assert values["fitness"] == pytest.approx(0.1 * values[METRIC_KEYS[2]] + 0.9 * values[METRIC_KEYS[3]])
    assert fitness(values) == metrics.fitness == box.fitness()
    assert len(metrics.curves) == len(metrics.curves_results) == 4


def test_batches_add_up():
    rng = np.random.default_rng(0)
    whole, parts = DetMetrics(NAMES), DetMetrics(NAMES)
    everything = []
    for i in range(5):
        batch = {
            "tp": rng.random((6, 10)) < 0.5,
            "conf": rng.random(6),
            "pred_cls": rng.integers(0, 3, 6),
            "pred_img": rng.integers(0, 2, 6),
            "target_cls": rng.integers(0, 3, 4),
            "target_img": rng.integers(0, 2, 4),
        }
        parts.update(**batch, image_files=[f"{i}_0.jpg", f"{i}_1.jpg"])
        everything.append({k: v + 2 * i if k.endswith("img") else v for k, v in batch.items()})
    files = [f"{i}_{j}.jpg" for i in range(5) for j in range(2)]
    whole.update(**{k: np.concatenate([b[k] for b in everything]) for k in everything[0]}, image_files=files)
    assert whole.process() == parts.process()
    assert whole.box.image_metrics == parts.box.image_metrics


def test_image_metrics_count_at_the_confidence_of_the_table():
    metrics = collected([0.9, 0.8, 0.01], [0, 0, 0], [0, 1, 1], [0, 0], [0, 1], ["a.jpg", "b.jpg"], [True, True, False])
    assert metrics.box.best_conf > 0.01  # the stray box of score 0.01 is no false alarm
    assert metrics.box.image_metrics["b.jpg"] == {"precision": 1, "recall": 1, "f1": 1, "tp": 1, "fp": 0, "fn": 0}


def test_equal_file_names_do_not_overwrite_each_other():
    names = shortest_unique_names(["/d/a/1.jpg", "/d/b/1.jpg", "/d/a/2.jpg", "/e/b/1.jpg"])
    assert names == ["a/1.jpg", "d/b/1.jpg", "2.jpg", "e/b/1.jpg"]
    assert shortest_unique_names(["1.jpg", "1.jpg"]) == ["1.jpg", "1.jpg"]
    metrics = collected([0.9], [0], [0], [0, 0], [0, 1], ["/a/x.jpg", "/b/x.jpg"], [True])
    assert {key: value["tp"] for key, value in metrics.box.image_metrics.items()} == {"a/x.jpg": 1, "b/x.jpg": 0}


def test_summary_csv_and_json_tell_the_same():
    metrics = collected([0.9, 0.8], [0, 2], [0, 0], [0, 2], [0, 0], ["a.jpg"], [True, False])
    rows = metrics.summary()
    assert list(rows[0]) == ["Class", "Images", "Instances", "Box-P", "Box-R", "Box-F1", "mAP50", "mAP75", "mAP50-95"]
    assert [row["Class"] for row in rows] == ["cat", "owl"] and rows[0]["mAP50-95"] == pytest.approx(0.995, abs=0.01)
    assert json.loads(metrics.to_json()) == rows
    assert metrics.to_csv().splitlines()[0].split(",") == list(rows[0])


def test_clear_starts_over():
    metrics = collected([0.9], [0], [0], [0], [0], ["a.jpg"], [True])
    assert metrics.fitness > 0.9
    metrics.clear()
    assert metrics.fitness == 0 and metrics.image_files == [] and metrics.process()["fitness"] == 0


def test_each_number_is_read_at_its_own_threshold():
    """One object found at IoU 0.50 to 0.70 and one found at all: what lies at 0.75 and above sees the second only."""
    metrics = DetMetrics(NAMES)
    tp = np.array([np.arange(10) < 5, np.ones(10, bool)])
    one = {"conf": np.array([0.9, 0.8]), "pred_cls": np.array([0, 1]), "pred_img": np.zeros(2)}
    metrics.update(tp=tp, **one, target_cls=np.array([0, 1]), target_img=np.zeros(2), image_files=["a.jpg"])
    metrics.process()
    box, rows = metrics.box, metrics.summary()
    assert box.map50 == pytest.approx(0.995) and box.map75 == pytest.approx(0.995 / 2)
    assert box.map == pytest.approx(0.75 * 0.995)
    assert metrics.fitness == pytest.approx(0.1 * 0.995 + 0.9 * 0.75 * 0.995)
    assert [(row["mAP50"], row["mAP75"]) for row in rows] == [(0.995, 0.0), (0.995, 0.995)]
    assert rows[0]["mAP50-95"] == pytest.approx(0.4975)


def test_curves_are_told_by_their_titles():
    metrics = collected([0.9, 0.8, 0.7], [0, 0, 1], [0, 0, 0], [0, 0, 1], [0, 0, 0], ["a.jpg"], [True, False, True])
    box = metrics.box
    expected = {"Precision-Recall(B)": box.prec_values, "F1-Confidence(B)": box.f1_curve}
    expected |= {"Precision-Confidence(B)": box.p_curve, "Recall-Confidence(B)": box.r_curve}
    for title, (x, y, x_name, y_name) in zip(metrics.curves, metrics.curves_results, strict=True):
        assert x is box.px and np.array_equal(y, expected[title])
        first, second = title.removesuffix("(B)").split("-")
        assert (x_name, y_name) == ((second, first) if "Confidence" in title else ("Recall", "Precision"))


def test_a_detection_at_the_confidence_of_the_table_counts_in_its_image():
    on_grid = np.linspace(0, 1, 1000)[500]
    stats = {"conf": np.array([on_grid, on_grid - 1e-6]), "tp": np.ones((2, 10), bool), "pred_img": np.zeros(2, int)}
    stats["excused"] = np.zeros((2, 10), bool)
    images = ImageCounts(["a.jpg"], stats | {"target_img": np.zeros(2, int)}, on_grid).as_dict()
    assert images["a.jpg"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "tp": 1, "fp": 0, "fn": 1}
