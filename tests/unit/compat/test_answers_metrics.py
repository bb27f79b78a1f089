"""Average precision, its collectors, confusion and pictures under the incumbent's names."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from eyas import metrics as own
from eyas.compat.answers import metrics, plotting

CLASSES = np.array([0] * 4 + [1] * 5 + [2])


@pytest.fixture
def detections() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tp (12, 10), scores and classes of spec core J.3."""
    k, j = np.arange(12)[:, None], np.arange(10)[None]
    return (7 * k + 3 * j) % 5 < 3 - j // 4, 0.95 - 0.06 * k[:, 0], k[:, 0] % 2


def test_average_precision_is_the_recorded_one_and_eyas_own(
    detections: tuple[np.ndarray, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    told: list[Path] = []
    found = metrics.ap_per_class(
        *map(torch.from_numpy, detections),
        CLASSES,
        plot=True,
        save_dir=tmp_path,
        names=["a", "b", "c"],
        on_plot=told.append,
    )
    hits, wrong, p, r, f1, ap, classes, *curves, x, prec = found
    np.testing.assert_allclose(p, [2 / 3, 2 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(r, [1, 0.8, 0], atol=1e-6)
    np.testing.assert_allclose(ap[0, :3], [0.745, 0.55875, 0.828333], atol=1e-6)
    assert (hits.tolist(), wrong.tolist(), classes.tolist()) == ([4, 4, 0], [2, 2, 0], [0, 1, 2])
    mine = own.ap_per_class(*detections, CLASSES)
    assert np.array_equal(ap, mine.ap) and np.array_equal(f1, mine.f1) and np.array_equal(prec, mine.prec_values)
    assert all(np.array_equal(a, b) for a, b in zip(curves, (mine.p_curve, mine.r_curve, mine.f1_curve), strict=True))
    assert x.shape == (1000,) and len(told) == 4 and all(path.is_file() for path in told)


def test_one_curve() -> None:
    ap, precision, recall = metrics.compute_ap([0.25, 0.25, 0.5, 0.75], [1, 0.5, 2 / 3, 0.75])
    assert ap == pytest.approx(0.62, abs=1e-3)
    assert precision.tolist() == [1, 1, 0.75, 0.75, 0.75, 0, 0] and recall.tolist() == [
        0,
        0.25,
        0.25,
        0.5,
        0.75,
        0.75,
        1,
    ]
    assert metrics.compute_ap([], [])[0] == 0
    flat = metrics.smooth(np.r_[np.zeros(50), np.ones(50)], 0.1)
    assert len(flat) == 100 and flat[0] == 0 and flat[-1] == pytest.approx(1) and 0 < flat[49] < flat[50] < 1


def test_collectors_agree_with_each_other(
    detections: tuple[np.ndarray, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    tp, conf, cls = detections
    whole, single = metrics.DetMetrics(names={0: "a", 1: "b", 2: "c"}), metrics.DetMetrics(tmp_path, names=["x"])
    found = whole.process(tp, conf, cls, CLASSES)
    assert single.names == {0: "x"} and single.save_dir == tmp_path
    halves = metrics.DetMetrics(["a", "b", "c"])
    for rows, truth in ((slice(0, 5), CLASSES[:3]), (slice(5, 12), CLASSES[3:])):
        halves.update_stats({"tp": tp[rows], "conf": conf[rows], "pred_cls": cls[rows], "target_cls": truth})
    assert halves.process() == found == whole.results_dict
    assert found == whole.process(tp=tp, conf=conf, pred_cls=cls, target_cls=CLASSES)
    with pytest.raises(ValueError, match="needs pred_cls, target_cls too"):
        whole.process(tp=tp, conf=conf)
    metric = metrics.Metric()
    metric.update(metrics.ap_per_class(tp, conf, cls, CLASSES)[2:])
    assert metric.mean_results() == whole.mean_results() and metric.class_result(1) == whole.class_result(1)
    assert metric.best_conf == pytest.approx(whole.box.best_conf, abs=2e-3) and len(metric.maps) == 3


def test_confusion_is_counted_image_by_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = torch.tensor([[0.0, 0, 10, 10, 0.9, 0], [20, 20, 30, 30, 0.8, 1], [50, 50, 60, 60, 0.1, 1]])
    boxes, cls = torch.tensor([[0.0, 0, 10, 9], [20, 20, 30, 30], [70, 70, 80, 80]]), torch.tensor([0.0, 0, 1])
    expected = [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    older = metrics.ConfusionMatrix(nc=2, conf=0.001)
    older.process_batch(rows, boxes, cls)
    assert older.matrix.tolist() == expected
    newer = metrics.ConfusionMatrix(names={0: "a", 1: "b"})
    found = {"bboxes": rows[:, :4], "conf": rows[:, 4], "cls": rows[:, 5]}
    newer.process_batch(found, {"bboxes": boxes, "cls": cls}, conf=0.001)
    assert newer.matrix.tolist() == expected
    right, wrong = newer.tp_fp()
    assert (right.tolist(), wrong.tolist()) == ([1, 0], [0, 2])
    newer.process_batch(None, boxes[:1], cls[:1])
    assert newer.matrix[2].tolist() == [1, 1, 0]
    assert newer.summary()[2] == {"Predicted": "background", "a": 1, "b": 1, "background": 0}
    assert newer.summary(normalize=True, decimals=2)[1] == {"Predicted": "b", "a": 0.33, "b": 0, "background": 1}
    assert all(path.is_file() for path in newer.plot(save_dir=tmp_path / "new"))
    with caplog.at_level("INFO", "eyas"):
        newer.print()
    assert "background" in caplog.text
    with pytest.raises(ValueError, match="task='classify' is not supported"):
        metrics.ConfusionMatrix(task="classify")


# -- pictures ----------------------------------------------------------------------------------------------------------
def test_colours_differ_and_turn_over() -> None:
    assert plotting.colors(3, True) == plotting.colors(3)[::-1]
    assert len(set(plotting.colors.palette)) == plotting.colors.n
    assert plotting.Colors.hex2rgb("#04f2aa") == (4, 242, 170)


def test_boxes_are_drawn_in_place() -> None:
    image = np.full((100, 120, 3), 255, np.uint8)
    drawing = plotting.Annotator(image, line_width=2)
    drawing.box_label([10, 40, 60, 90], "cat 0.9", color=(255, 0, 0))
    drawing.text((70, 70), "hello", txt_color=(0, 0, 0))
    assert drawing.result() is image
    assert image[65, 10].tolist() == [255, 0, 0] and image[65, 30].tolist() == [255, 255, 255]
    assert (image[25:38, 10:60] != 255).any() and (image[70:85, 70:] != 255).any()
    drawing.rectangle((100, 0, 110, 10), fill=(0, 0, 255))
    assert image[5, 105].tolist() == [0, 0, 255] and drawing.result(pil=True).getpixel((105, 5)) == (255, 0, 0)
    image.flags.writeable = False
    assert plotting.Annotator(image).result() is not image


@pytest.mark.parametrize("shares", [True, False])
def test_a_batch_becomes_a_sheet(tmp_path: Path, shares: bool) -> None:
    images = torch.zeros(2, 3, 64, 64)
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.9, 0.9]]) * (1 if shares else 64)
    rows = {
        "batch_idx": torch.tensor([0.0, 1]),
        "cls": torch.zeros(2),
        "bboxes": boxes,
        "conf": torch.tensor([0.9, 0.1]),
    }
    told: list[Path] = []
    path = plotting.plot_images(
        rows, images=images, paths=["a.jpg", "b.jpg"], fname=tmp_path / "x.png", names={0: "n"}, on_plot=told.append
    )
    old = plotting.plot_images(
        images, rows["batch_idx"], rows["cls"], boxes, rows["conf"], ["a.jpg", "b.jpg"], tmp_path / "y.png", {0: "n"}
    )
    assert told == [path] and path.read_bytes() == old.read_bytes()
    sheet = cv2.imread(str(path))
    assert sheet is not None
    side = sheet.shape[1] // 2
    first, second = (sheet[150:-150, start + 150 : start + side - 150] for start in (0, side))
    assert first.any() and not second.any()  # the second box is below the score
    with pytest.raises(ValueError, match="does not take masks"):
        plotting.plot_images(images, masks=images)


def test_labels_and_results_are_drawn(tmp_path: Path) -> None:
    path = plotting.plot_labels(np.full((3, 4), 0.5), np.array([0, 1, 1]), names=["a", "b"], save_dir=tmp_path / "new")
    assert path == tmp_path / "new" / "labels.jpg" and path.is_file()
    (tmp_path / "results.csv").write_text("epoch,train/box_loss,val/box_loss\n1,2.0,3.0\n2,1.0,2.0\n")
    assert plotting.plot_results(dir=tmp_path) == tmp_path / "results.png"
    assert plotting.plot_results(file=tmp_path / "results.csv").is_file()
    with pytest.raises(FileNotFoundError, match="no table of a run"):
        plotting.plot_results(tmp_path / "none.csv")
