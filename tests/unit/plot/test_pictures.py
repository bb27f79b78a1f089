from __future__ import annotations

import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
import torch

from eyas.metrics import BoxMetrics, ConfusionMatrix, DetMetrics
from eyas.plot.confusion import save_confusion_matrices
from eyas.plot.curves import save_curves
from eyas.plot.images import draw_boxes, save_batch_picture, save_train_batch
from eyas.plot.labels import save_labels_picture
from eyas.plot.results import save_results_picture, smoothed
from eyas.plot.style import class_bgr, class_rgb

NAMES = {0: "cat", 1: "a very long name of a class indeed", 2: "犬"}


def height_width(path):
    picture = cv2.imread(str(path))
    assert picture is not None and len(np.unique(picture)) > 3, f"{path} is empty"
    return picture.shape[:2]


def measured(classes=3):
    rng = np.random.default_rng(0)
    metrics = DetMetrics({i: f"class {i}" for i in range(classes)})
    metrics.update(
        tp=rng.random((300, 10)) < 0.6,
        conf=rng.random(300),
        pred_cls=rng.integers(0, classes, 300),
        pred_img=np.zeros(300),
        target_cls=rng.integers(0, classes, 400),
        target_img=np.zeros(400),
        image_files=["a.jpg"],
    )
    metrics.process()
    return metrics


@pytest.mark.parametrize("classes", [1, 3, 40])
def test_curves(tmp_path, classes):
    metrics = measured(classes)
    before = metrics.box.f1_curve.copy()
    paths = save_curves(metrics.box, metrics.names, tmp_path)
    assert [path.name for path in paths] == ["BoxPR_curve.png", "BoxF1_curve.png", "BoxP_curve.png", "BoxR_curve.png"]
    assert {height_width(path) for path in paths} == {(900, 1350)}
    np.testing.assert_array_equal(metrics.box.f1_curve, before)


def test_curves_without_labels(tmp_path):
    assert all(height_width(path) == (900, 1350) for path in save_curves(BoxMetrics(3), NAMES, tmp_path))


@pytest.mark.parametrize("classes", [1, 3, 60])
def test_confusion(tmp_path, classes):
    confusion = ConfusionMatrix({i: f"class {i}" for i in range(classes)})
    confusion.matrix[:] = np.random.default_rng(0).integers(0, 50, confusion.matrix.shape)
    paths = save_confusion_matrices(confusion, tmp_path)
    assert [path.name for path in paths] == ["confusion_matrix.png", "confusion_matrix_normalized.png"]
    assert all(min(height_width(path)) >= 900 for path in paths)


def test_confusion_of_nothing(tmp_path):
    for path in save_confusion_matrices(ConfusionMatrix(NAMES), tmp_path):
        height_width(path)


def make_batch(images, dtype=torch.uint8):
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 64, 96), dtype=torch.uint8)
    return {
        "img": pixels if dtype == torch.uint8 else pixels.float() / 255,
        "cls": torch.randint(0, 3, (2 * images, 1)).float(),
        "bboxes": torch.rand(2 * images, 4) * 0.3 + 0.3,
        "batch_idx": torch.arange(images).repeat_interleave(2).float(),
        "im_file": [f"/data/{i}.jpg" for i in range(images)],
    }


@pytest.mark.parametrize(("images", "columns", "rows"), [(1, 1, 1), (3, 2, 2), (20, 4, 4)])
def test_train_batch(tmp_path, images, columns, rows):
    batch = make_batch(images)
    copies = {key: value.clone() for key, value in batch.items() if isinstance(value, torch.Tensor)}
    path = save_train_batch(tmp_path / "run" / "train_batch0.jpg", batch, NAMES)
    height, width = height_width(path)
    assert abs(width - 1600) < 30 and height == pytest.approx(width * rows * 64 / (columns * 96), rel=0.02)
    assert all(torch.equal(batch[key], copy) for key, copy in copies.items())


def test_float_and_byte_images_look_the_same(tmp_path):
    first = save_train_batch(tmp_path / "a.png", make_batch(2), NAMES)
    second = save_train_batch(tmp_path / "b.png", make_batch(2, torch.float32), NAMES)
    np.testing.assert_array_equal(cv2.imread(str(first)), cv2.imread(str(second)))


def test_batch_without_boxes(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    none = np.zeros(0, int)
    path = save_batch_picture(tmp_path / "x.jpg", pixels, boxes=np.zeros((0, 4)), cls=none, image=none, names=NAMES)
    height_width(path)


def test_draw_boxes_colours_the_edge_and_leaves_the_input():
    image = np.full((200, 300, 3), 50, np.uint8)
    drawn = draw_boxes(image, np.array([[50, 60, 250, 180]]), np.array([1]), line_width=3)
    assert (image == 50).all()
    assert drawn[120, 50].tolist() == list(class_bgr(1)) and drawn[120, 150].tolist() == [50, 50, 50]


def test_draw_boxes_outside_the_image_and_in_tiny_images():
    far = np.array([[-50, -60, 1e30, 400], [290, np.nan, 320, np.inf]])
    draw_boxes(np.zeros((200, 300, 3), np.uint8), far, np.array([0, 2]), names=NAMES, score=np.array([0.5, 0.9]))
    draw_boxes(np.zeros((4, 5, 3), np.uint8), far, np.array([0, 2]), names=NAMES)


def test_neighbouring_classes_have_different_colours():
    colours = np.array([class_bgr(i) for i in range(20)], float)
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 1000 * np.eye(20)
    assert distance.min() > 25


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_labels(tmp_path, count):
    rng = np.random.default_rng(0)
    cls, boxes = rng.integers(0, 3, count), rng.random((count, 4))
    path = save_labels_picture(cls, boxes, NAMES, tmp_path / "labels.jpg")
    assert height_width(path) == (720, 2250)


def test_results(tmp_path):
    table = tmp_path / "results.csv"
    lines = ["epoch,time,train/box_loss,val/box_loss,metrics/mAP50(B),fitness,lr/pg0,lr/pg1"]
    lines += [f"{e},{e * 2.5},{1 / e},{'' if e % 2 else 2 / e},{1 - 1 / e},nan,{0.01 / e},0.1" for e in range(1, 8)]
    table.write_text("\n".join(lines) + "\n")
    path = save_results_picture(table)
    assert path == tmp_path / "results.png"
    assert min(height_width(path)) > 300


def test_results_of_an_empty_table_are_told(tmp_path):
    table = tmp_path / "results.csv"
    table.write_text("epoch,train/box_loss\n")
    with pytest.raises(ValueError, match="no rows"):
        save_results_picture(table)


def test_smoothing_keeps_constants_and_single_values():
    np.testing.assert_allclose(smoothed(np.full(9, 0.3)), 0.3)
    np.testing.assert_allclose(smoothed(np.array([2.0])), [2.0])


def test_drawing_starts_no_thread_and_leaves_pyplot_alone(tmp_path):
    threads = threading.active_count()
    metrics = measured()
    save_curves(metrics.box, metrics.names, tmp_path)
    assert threading.active_count() == threads
    modules = ", ".join(f"eyas.plot.{name}" for name in ("curves", "results", "labels", "confusion", "images"))
    code = f"import {modules}, sys; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def flat_batch(count):
    """One colour for each image: (R, G, B) = (10 i, 200 - 10 i, 60)."""
    colours = np.array([[10 * i, 200 - 10 * i, 60] for i in range(count)], np.uint8)
    return np.broadcast_to(colours[:, :, None, None], (count, 3, 32, 48)).copy()


def middle_of_tile(sheet, i, columns, rows):
    """BGR at the middle of tile i."""
    height, width = sheet.shape[:2]
    return sheet[int((i // columns + 0.5) * height / rows), int((i % columns + 0.5) * width / columns)].tolist()


@pytest.mark.parametrize(("count", "columns", "rows"), [(2, 2, 1), (5, 3, 2), (12, 4, 3)])
def test_each_image_is_shown_once_in_its_place_and_in_its_colours(tmp_path, count, columns, rows):
    none = np.zeros(0, int)
    boxes = {"boxes": np.zeros((0, 4)), "cls": none, "image": none, "names": NAMES}
    sheet = cv2.imread(str(save_batch_picture(tmp_path / "x.png", flat_batch(count), **boxes)))
    for i in range(count):
        assert middle_of_tile(sheet, i, columns, rows) == [60, 200 - 10 * i, 10 * i]


def test_a_box_is_drawn_on_its_own_image_alone(tmp_path):
    image, box = flat_batch(2), np.array([[12.0, 8, 36, 24]])
    one = {"cls": np.array([1]), "image": np.array([1]), "names": NAMES}
    sheet = cv2.imread(str(save_batch_picture(tmp_path / "x.png", image, boxes=box, **one)))
    half = sheet.shape[1] // 2
    edge = (sheet == class_bgr(1)).all(axis=2)
    assert edge[:, half:].any() and not edge[:, :half].any()
    rows, columns = np.nonzero(edge[:, half:])
    assert abs(columns.min() / half - 12 / 48) < 0.03 and abs(columns.max() / half - 36 / 48) < 0.03
    assert abs(rows.max() / len(sheet) - 24 / 32) < 0.05


def test_the_best_box_lies_on_top():
    boxes, image = np.array([[20.0, 20, 80, 80]] * 2), np.full((100, 100, 3), 50, np.uint8)
    for score in ([0.9, 0.3], [0.3, 0.9]):
        drawn = draw_boxes(image, boxes, np.array([0, 1]), score=np.array(score), line_width=3)
        assert drawn[50, 20].tolist() == list(class_bgr(int(np.argmax(score))))


def test_a_class_has_one_colour():
    assert all(class_bgr(i) == tuple(round(255 * v) for v in class_rgb(i)[::-1]) for i in range(30))


def blue_centre(path, left, right):
    """Mean x and y of the blue pixels in a vertical strip of a picture."""
    picture = cv2.imread(str(path)).astype(int)
    strip = picture[:, int(left * picture.shape[1]) : int(right * picture.shape[1])]
    rows, columns = np.nonzero(strip[..., 0] - strip[..., 2] > 80)
    return columns.mean(), rows.mean()


def test_box_centres_lie_where_they_are_on_images(tmp_path):
    centres = []
    for x, y in ((0.2, 0.9), (0.9, 0.2)):
        boxes = np.tile([x, y, 0.1, 0.1], (50, 1))
        save_labels_picture(np.zeros(50), boxes, NAMES, tmp_path / "labels.png")
        centres.append(blue_centre(tmp_path / "labels.png", 0.42, 0.7))
    assert centres[0][0] < centres[1][0] - 50 and centres[0][1] > centres[1][1] + 50


def test_shares_do_not_depend_on_how_much_was_counted(tmp_path):
    pictures = []
    for factor in (1, 7):
        confusion = ConfusionMatrix({0: "a", 1: "b"})
        confusion.matrix[:] = np.array([[3, 1, 0], [1, 2, 5], [0, 4, 0]]) * factor
        pictures.append([path.read_bytes() for path in save_confusion_matrices(confusion, tmp_path)])
    assert pictures[0][0] != pictures[1][0] and pictures[0][1] == pictures[1][1]


def drawn_results(folder, text):
    (folder / "results.csv").write_text(text)
    return cv2.imread(str(save_results_picture(folder / "results.csv")))


def test_epochs_without_a_value_are_left_out(tmp_path):
    gaps = drawn_results(tmp_path, "epoch,metrics/mAP50(B)\n1,0.5\n2,\n3,0.7\n4,nan\n5,0.6\n")
    assert np.array_equal(gaps, drawn_results(tmp_path, "epoch,metrics/mAP50(B)\n1,0.5\n3,0.7\n5,0.6\n"))


def test_losses_of_training_and_validation_share_a_panel(tmp_path):
    one = drawn_results(tmp_path, "epoch,train/box_loss\n1,3\n2,2\n")
    both = drawn_results(tmp_path, "epoch,train/box_loss,val/box_loss\n1,3,2\n2,2,1\n")
    apart = drawn_results(tmp_path, "epoch,train/box_loss,train/cls_loss\n1,3,2\n2,2,1\n")
    assert one.shape == both.shape != apart.shape


def test_areas_to_ignore_are_hatched_in_their_image_alone(tmp_path):
    batch = make_batch(2)
    areas = {
        "ignored": torch.tensor([[0.25, 0.5, 0.5, 1.0]]),
        "ignored_idx": torch.tensor([1]),
        "ignored_kind": torch.tensor([0]),
        "ignored_classes": torch.tensor([[True]]),
    }
    plain = cv2.imread(str(save_train_batch(tmp_path / "a.png", batch, NAMES))).astype(int)
    told = cv2.imread(str(save_train_batch(tmp_path / "b.png", batch | areas, NAMES))).astype(int)
    changed = np.abs(told - plain).max(2) > 0
    columns = changed.any(0)
    half = changed.shape[1] // 2  # the second image begins there
    assert not columns[:half].any()
    assert 0.1 < changed[:, half : half + half // 2].mean() < 0.3
    assert not columns[half + half // 2 + 8 :].any()
