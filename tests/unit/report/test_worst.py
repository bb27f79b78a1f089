"""The worst images: which they are, and that truth and prediction are drawn where they belong."""

from __future__ import annotations

import base64
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eyas.data.dataset import EvalDataset
from eyas.data.index import build_index
from eyas.data.store import ImageStore
from eyas.metrics.detection import DetMetrics
from eyas.report.worst import BUDGET, MOST_FOUND, PictureBook, Shown, gallery, small, worst_images

NAMES = {0: "cat", 1: "<b>dog</b>"}
BOX = [10.0, 20.0, 50.0, 60.0]
AWAY = [100.0, 100.0, 140.0, 140.0]


def metrics_of(*images: tuple[list[Any], list[Any]]) -> DetMetrics:
    """Return metrics of images given as (true boxes with class, found boxes with class, score and whether right)."""
    metrics = DetMetrics(NAMES)
    for number, (true, found) in enumerate(images):
        metrics.update(
            tp=np.repeat(np.array([right for *_, right in found], bool).reshape(-1, 1), 10, axis=1),
            conf=np.array([score for _, _, score, _ in found]),
            pred_cls=np.array([cls for _, cls, _, _ in found]),
            pred_img=np.zeros(len(found)),
            target_cls=np.array([cls for _, cls in true]),
            target_img=np.zeros(len(true)),
            image_files=[f"folder/{number}.jpg"],
            pred_box=np.array([box for box, *_ in found]).reshape(-1, 4),
            target_box=np.array([box for box, _ in true]).reshape(-1, 4),
        )
    metrics.process()
    return metrics


PERFECT = ([(BOX, 0)], [(BOX, 0, 0.9, True)])
MISSED = ([(BOX, 0)], [])
MISSED_TWO = ([(BOX, 0), (AWAY, 1)], [])
HALF = ([(BOX, 0), (AWAY, 1)], [(BOX, 0, 0.9, True), (AWAY, 0, 0.95, False)])
EMPTY: tuple[list[Any], list[Any]] = ([], [])
PICTURE = Shown(b"jpeg", (80, 40), (160.0, 80.0))


def test_the_lowest_f1_comes_first_and_good_images_do_not_come() -> None:
    found = worst_images(metrics_of(PERFECT, HALF, EMPTY, MISSED, MISSED_TWO, PERFECT))
    assert [image.file for image in found] == ["folder/4.jpg", "folder/3.jpg", "folder/1.jpg"]
    assert [image.f1 for image in found] == pytest.approx([0, 0, 2 * 1 / (2 + 2)])
    assert [(image.missed, image.false) for image in found] == [(2, 0), (1, 0), (1, 1)]
    assert len(worst_images(metrics_of(*[MISSED] * 5), most=2)) == 2


def test_f1_is_that_of_the_metrics() -> None:
    metrics = metrics_of(HALF, PERFECT, MISSED_TWO)
    known = metrics.box.image_metrics
    for image in worst_images(metrics):
        name = Path(image.file).name
        assert image.f1 == pytest.approx(known[name]["f1"])
        assert (image.missed, image.false) == (known[name]["fn"], known[name]["fp"])


def test_weak_detections_are_not_shown() -> None:
    weak = ([(BOX, 0)], [(BOX, 0, 0.9, True), (AWAY, 0, 0.01, False)])
    weakly_right = ([(BOX, 0)], [(BOX, 0, 0.01, True)])
    metrics = metrics_of(weak, weak, weak, MISSED, weakly_right)
    assert metrics.box.best_conf > 0.01
    found = worst_images(metrics)
    assert [(image.file, image.missed, image.false) for image in found] == [
        ("folder/3.jpg", 1, 0),
        ("folder/4.jpg", 1, 0),
    ]


def test_what_is_excused_is_not_wrong() -> None:
    metrics = metrics_of(HALF, MISSED)
    assert [image.false for image in worst_images(metrics)] == [0, 1]
    for batch in metrics._collected:
        batch["excused"] = ~batch["tp"]
    metrics.process()
    found = worst_images(metrics)
    assert [(image.file, image.missed, image.false) for image in found] == [
        ("folder/1.jpg", 1, 0),
        ("folder/0.jpg", 1, 0),
    ]
    assert [len(image.found) for image in found] == [0, 1]


def test_without_boxes_there_is_nothing_to_draw() -> None:
    metrics = DetMetrics(NAMES)
    assert worst_images(metrics) == []
    none = np.zeros((0, 10), bool), np.zeros(0)
    metrics.update(
        tp=none[0], conf=none[1], pred_cls=none[1], pred_img=none[1], target_cls=np.zeros(1), target_img=np.zeros(1),
        image_files=["a.jpg"],
    )  # fmt: skip
    metrics.process()
    assert worst_images(metrics) == []


def drawn(metrics: DetMetrics, picture: Shown = PICTURE) -> ET.Element:
    return ET.fromstring(gallery(worst_images(metrics), NAMES, lambda file: picture))


def rects(tree: ET.Element) -> list[tuple[str, list[float], str]]:
    """Return kind, xywh and name of every box."""
    return [
        (e.attrib["class"], [float(e.attrib[k]) for k in ("x", "y", "width", "height")], "".join(e.itertext()))
        for e in tree.iter("rect")
        if "class" in e.attrib
    ]


def test_boxes_lie_where_they_do_in_the_image() -> None:
    tree = drawn(metrics_of(HALF))
    assert rects(tree) == [
        ("truth", [5, 10, 20, 20], "cat"),
        ("truth", [50, 50, 20, 20], "<b>dog</b>"),
        ("wrong", [50, 50, 20, 20], "cat 0.95"),  # the best score first
        ("right", [5, 10, 20, 20], "cat 0.90"),
    ]
    svg: Any = tree.find("figure/svg")
    assert [child.tag for child in svg] == ["defs", "g", "g"]
    assert svg[2].attrib["transform"] == "translate(88)"  # the prediction is beside the truth, not upon it
    assert len(list(tree.iter("image"))) == 1 and len(list(tree.iter("use"))) == 2  # one picture serves both


def test_a_box_turned_inside_out_has_no_negative_side() -> None:
    tree = drawn(metrics_of(([(BOX, 0)], [([50.0, 60.0, 10.0, 20.0], 1, 0.9, False)])))
    assert rects(tree)[1][1][2:] == [0, 0]


def test_names_are_escaped_and_many_are_not_written() -> None:
    text = gallery(worst_images(metrics_of(HALF)), NAMES, lambda file: PICTURE)
    assert "<b>dog" not in text and "&lt;b&gt;dog" in text
    crowd = ([(BOX, 0)], [(AWAY, 1, 0.9, False)] * 60)
    tree = drawn(metrics_of(crowd))
    assert len([kind for kind, *_ in rects(tree) if kind == "wrong"]) == MOST_FOUND
    assert len(list(tree.iter("text"))) == 1  # that of the truth


def test_the_page_has_an_end() -> None:
    metrics = metrics_of(*[MISSED] * 6)
    large = Shown(b"x" * (BUDGET // 3), (8, 8), (8.0, 8.0))
    text = gallery(worst_images(metrics), NAMES, lambda file: large)
    assert text.count("<figure") == 3
    assert len(text) < 2_000_000
    assert gallery(worst_images(metrics), NAMES, lambda file: None) == ""


# -- pictures ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def data(tmp_path: Path) -> EvalDataset:
    """Two images with labels: one wide and red, one with quotes in its name."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name, color in (("wide", (0, 0, 255)), ('it\'s "quoted"', (255, 0, 0))):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.full((200, 800, 3), color, np.uint8))
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    index = build_index([tmp_path / "images"], names=NAMES, split="val")
    return EvalDataset(index, ImageStore(index, imgsz=64, stretch=True), imgsz=64, stride=32)


class Loader:
    def __init__(self, dataset: object) -> None:
        self.dataset = dataset

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


def pixels(shown: Shown | None) -> np.ndarray:
    assert shown is not None
    return cv2.imdecode(np.frombuffer(shown.jpeg, np.uint8), cv2.IMREAD_COLOR)


def test_a_picture_has_the_shape_and_colours_of_the_image(data: EvalDataset) -> None:
    book = PictureBook(Loader(data))
    file = next(name for name in data.im_files if "wide" in name)
    shown = book(file)
    assert shown is not None and (shown.size, shown.original) == ((360, 90), (800, 200))  # although loaded as a square
    assert np.abs(pixels(shown).mean((0, 1)) - [0, 0, 255]).max() < 3
    assert book(file) is shown  # made once
    book.keep([])
    assert book.made == {}
    assert book("never seen.jpg") is None


def test_a_file_that_has_gone_is_left_out(data: EvalDataset) -> None:
    file = data.im_files[0]
    Path(file).unlink()
    assert PictureBook(Loader(data))(file) is None


def test_of_another_loader_files_are_read_and_other_names_are_not(data: EvalDataset) -> None:
    book = PictureBook(Loader([1, 2]))
    shown = book(data.im_files[1])
    assert shown is not None and shown.original == (800, 200)
    assert book("MyData[3]") is None


def test_small_images_are_not_enlarged() -> None:
    shown = small(np.zeros((20, 30, 3), np.uint8), (20, 30))
    assert shown is not None and shown.size == (30, 20)
    assert math.isclose(len(base64.b64encode(shown.jpeg)) * 3 / 4, len(shown.jpeg), abs_tol=3)
