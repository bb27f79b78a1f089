from __future__ import annotations

import numpy as np

from eyas.metrics import ConfusionMatrix

BOXES = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]], float)
SCORES, CLASSES, IMAGE = np.array([0.9, 0.8, 0.1]), np.array([0, 1, 1]), np.zeros(3, int)
TRUTH = np.array([[0, 0, 10, 9], [20, 20, 30, 30], [70, 70, 80, 80]], float), np.array([0, 0, 1]), np.zeros(3, int)
NAMES = {0: "cat", 1: "dog"}


def test_golden_vector_of_the_spec():
    confusion = ConfusionMatrix(NAMES, conf=0.001)
    confusion.update(BOXES, SCORES, CLASSES, IMAGE, *TRUTH)
    assert confusion.matrix.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_default_confidence_keeps_the_background_column_clean():
    confusion = ConfusionMatrix(NAMES)
    confusion.update(BOXES, SCORES, CLASSES, IMAGE, *TRUTH)
    assert confusion.matrix.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_every_box_is_counted_once():
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 50, (80, 2)), rng.uniform(10, 40, (80, 2))
    boxes = np.concatenate([corner, corner + size], axis=1)
    cls, image = rng.integers(0, 2, 80), rng.integers(0, 3, 80)
    confusion = ConfusionMatrix(NAMES, conf=0.0)
    confusion.update(boxes[:50], rng.random(50) + 0.01, cls[:50], image[:50], boxes[50:], cls[50:], image[50:])
    assert confusion.matrix[:, :2].sum(axis=0).tolist() == np.bincount(cls[50:], minlength=2).tolist()
    assert confusion.matrix[:2].sum(axis=1).tolist() == np.bincount(cls[:50], minlength=2).tolist()
    columns = confusion.normalized().sum(axis=0)
    assert np.allclose(columns[confusion.matrix.sum(axis=0) > 0], 1)


def test_only_labels_or_only_detections():
    nothing = np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), np.zeros(0, int)
    confusion = ConfusionMatrix(NAMES)
    confusion.update(*nothing, *TRUTH)
    confusion.update(BOXES, SCORES, CLASSES, IMAGE, nothing[0], nothing[2], nothing[3])
    assert confusion.matrix.tolist() == [[0, 0, 1], [0, 0, 1], [2, 1, 0]]
    assert confusion.labels() == ["cat", "dog", "background"]


def test_both_limits_must_be_exceeded():
    box, one = np.array([[0.0, 0, 10, 10]]), np.zeros(1, int)
    half = np.array([[0.0, 0, 10, 5]])  # overlap 0.5 exactly
    for conf, iou, expected in ((0.5, 0.4, [1, 0]), (0.75, 0.4, [0, 1]), (0.5, 0.5, [0, 1]), (0.5, 0.49, [1, 0])):
        confusion = ConfusionMatrix(NAMES, conf=conf, iou=iou)
        confusion.update(box, np.array([0.75]), one, one, half, one, one)
        assert [confusion.matrix[0, 0], confusion.matrix[2, 0]] == expected, (conf, iou)


def test_shares_are_of_the_true_objects():
    confusion = ConfusionMatrix(NAMES)
    confusion.matrix[:] = [[6, 1, 2], [2, 0, 0], [0, 3, 0]]
    assert np.allclose(confusion.normalized(), [[0.75, 0.25, 1], [0.25, 0, 0], [0, 0.75, 0]])
