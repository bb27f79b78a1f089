from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from eyas.evaluate import Boxes, Results

NAMES = {0: "cat", 1: "dog"}
ROWS = np.array([[10, 20, 30, 60, 0.9, 1], [0, 0, 50, 40, 0.6, 0], [5, 5, 15, 10, 0.3, 1]], np.float32)


def make(rows=ROWS):
    return Results(np.full((80, 100, 3), 127, np.uint8), "/data/street.jpg", NAMES, rows, {"inference": 1.0})


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_boxes_in_every_format(kind):
    boxes = make(kind(ROWS.copy())).boxes
    assert type(boxes.xyxy) is type(boxes.xywh) is type(boxes.xyxyn) is type(kind(ROWS.copy()))
    np.testing.assert_allclose(boxes.xyxy[0], [10, 20, 30, 60])
    np.testing.assert_allclose(boxes.xywh[0], [20, 40, 20, 40])
    np.testing.assert_allclose(boxes.xyxyn[0], [0.1, 0.25, 0.3, 0.75])
    np.testing.assert_allclose(boxes.xywhn[0], [0.2, 0.5, 0.2, 0.5])
    np.testing.assert_allclose(boxes.conf, ROWS[:, 4])
    np.testing.assert_allclose(boxes.cls, ROWS[:, 5])
    assert len(boxes) == 3 and len(boxes[0]) == 1 and len(boxes[boxes.conf > 0.5]) == 2
    assert isinstance(boxes.numpy().xyxy, np.ndarray) and len(boxes.cpu()) == 3


def test_text_and_summary():
    results = make()
    assert str(results) == "street.jpg 80x100: 1 cat, 2 dog" and len(results) == 3
    assert str(make(ROWS[:0])) == "street.jpg 80x100: nothing found"
    first = results.summary(decimals=3)[0]
    assert first == {"name": "dog", "class": 1, "confidence": 0.9, "box": {"x1": 10, "y1": 20, "x2": 30, "y2": 60}}
    assert results.summary(normalize=True)[0]["box"]["y2"] == 0.75
    assert make(ROWS[:0]).summary() == []


def test_plot_draws_on_a_copy():
    results = make()
    drawn = results.plot()
    assert drawn.shape == results.orig_img.shape and drawn.dtype == np.uint8
    assert (results.orig_img == 127).all() and (drawn != 127).any()
    assert (make(ROWS[:0]).plot() == 127).all()
    assert (results.plot(labels=False, conf=False) != drawn).any()


def test_pictures_without_labels_do_not_depend_on_names():
    other = make()
    other.names = {0: "a much longer name", 1: "y"}
    assert (make().plot(conf=False) != other.plot(conf=False)).any()
    for conf in (True, False):
        np.testing.assert_array_equal(make().plot(labels=False, conf=conf), other.plot(labels=False, conf=conf))


def test_save(tmp_path, monkeypatch):
    path = make().save(tmp_path / "new" / "out.png")
    np.testing.assert_array_equal(cv2.imread(str(path)), make().plot())
    monkeypatch.chdir(tmp_path)
    assert make().save().name == "street_pred.jpg"
    with pytest.raises(ValueError, match=r"\.jpg or \.png"):
        make().save(tmp_path / "out.nonsense")


def test_supervision_takes_the_arrays():
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    results = make(torch.from_numpy(ROWS))
    assert results.xyxy.dtype == np.float32 and results.confidence.shape == (3,) and results.class_id.dtype == np.int64
    plain = supervision.Detections(xyxy=results.xyxy, confidence=results.confidence, class_id=results.class_id)
    assert len(plain) == 3 and plain[plain.confidence > 0.5].class_id.tolist() == [1, 0]
    assert results.to_supervision().data["class_name"].tolist() == ["dog", "cat", "dog"]
    assert len(make(ROWS[:0]).to_supervision()) == 0


def test_wrong_shape_is_told():
    with pytest.raises(ValueError, match=r"\(n, 6\)"):
        Boxes(np.zeros((3, 5)), (10, 10))
