"""What a notebook shows of the things that a training gives: one line of text, or escaped HTML."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eyas import RTDETR, YOLO, DetectionTrainer, DetectionValidator, TrainOptions
from eyas.evaluate.results import ResultList, Results
from eyas.metrics import ConfusionMatrix, DetMetrics
from eyas.run.plan import Choice
from eyas.train import TrainResult
from small_run import plan_of

EVIL = "<img src=x onerror='alert(1)'>&"
METRICS = {"metrics/mAP50(B)": 0.75, "metrics/mAP50-95(B)": 0.5, "fitness": 0.525}


def det_metrics() -> DetMetrics:
    """Metrics of one image with one box that was found, of a class with a name that HTML must not believe."""
    metrics, one = DetMetrics({0: EVIL, 1: "dog"}), np.zeros(1, int)
    metrics.update(
        tp=np.ones((1, 10), bool), conf=np.ones(1), pred_cls=one, pred_img=one, target_cls=one, target_img=one,
        image_files=["a.jpg"],
    )  # fmt: skip
    metrics.process()
    return metrics


def train_result() -> TrainResult:
    folder = Path(f"runs/{EVIL}")
    history = [{"epoch": float(epoch)} for epoch in range(300)]
    best = folder / "best.pt"
    return TrainResult(METRICS, 0.525, 3, 12, folder, best, best, history, plan_of(12, 9, 1, 0), det_metrics())


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_rtdetr: Path) -> dict[str, Any]:
    matrix = ConfusionMatrix({0: EVIL, 1: "dog"})
    matrix.matrix[0, 1] = 7
    yolo = YOLO(tiny_model)
    yolo.model.names = {0: EVIL}
    options = {"model": str(tiny_model), "data": EVIL, "save_dir": str(tmp_path_factory.mktemp("run") / "of")}
    plan = plan_of(12, 9, 1, 0)
    object.__setattr__(plan, "decisions", (Choice("lr0", EVIL, "typed"),))
    return {
        "TrainResult(epoch 3 of 12, fitness 0.5250, runs/": train_result(),
        "Plan(12 epochs, 9 batches of 8, AdamW, lr0 0.05)": plan,
        "YOLO('": yolo,
        "RTDETR('": RTDETR(tiny_rtdetr),
        "Results(street.jpg 48x640: 1 <img": Results(
            np.zeros((48, 640, 3), np.uint8), "street.jpg", {0: EVIL}, np.array([[1, 2, 30, 40, 0.9, 0]])
        ),
        "DetMetrics(P 1, R 1, mAP50 0.995, mAP50-95 0.995, 1 images)": det_metrics(),
        "BoxMetrics(P 1, R 1, mAP50 0.995, mAP50-95 0.995, 1 of 2 classes)": det_metrics().box,
        "ConfusionMatrix(2 classes, 7 pairs, conf=0.25, iou=0.45)": matrix,
        "DetectionTrainer(": DetectionTrainer(overrides=options),
        "DetectionValidator(2 classes, DetMetrics(": DetectionValidator([], names=["cat", "dog"]),
        "TrainOptions(epochs=3, lr0=0.1)": TrainOptions(epochs=3, lr0=0.1, lrf=0.01),
    }


def test_everything_is_told_in_one_short_line(shown: dict[str, Any]) -> None:
    for start, thing in shown.items():
        text = repr(thing)
        assert text.startswith(start) and len(text) < 300 and "\n" not in text and " object at 0x" not in text


def test_html_shows_numbers_and_trusts_no_name(shown: dict[str, Any]) -> None:
    pages = {start: thing._repr_html_() for start, thing in shown.items() if hasattr(thing, "_repr_html_")}
    assert {start.split("(")[0] for start in pages} == {
        "TrainResult", "Plan", "YOLO", "RTDETR", "Results", "DetMetrics", "ConfusionMatrix", "DetectionTrainer",
    }  # fmt: skip
    for start, page in pages.items():
        assert "<table>" in page and "onerror='" not in page, start
        assert ("&lt;img src=x" in page) != start.startswith("RTDETR"), start
    assert "<td>0.75</td>" in pages["TrainResult(epoch 3 of 12, fitness 0.5250, runs/"]
    assert "<td>7</td>" in pages["ConfusionMatrix(2 classes, 7 pairs, conf=0.25, iou=0.45)"]
    assert 'src="data:image/jpeg;base64,' in pages["Results(street.jpg 48x640: 1 <img"]


def test_a_measured_model_shows_its_numbers_and_an_empty_one_is_shown_as_well(shown: dict[str, Any]) -> None:
    yolo = shown["YOLO('"]
    yolo.metrics = det_metrics()
    assert "mAP50-95 0.995" in yolo._repr_html_()
    assert "<table>" in DetMetrics({})._repr_html_() and "nothing found" in repr(
        Results(np.zeros((4, 4, 3), np.uint8), "a.jpg", {}, np.zeros((0, 6)))
    )


def test_a_result_shows_curves_classes_and_what_was_found(tmp_path: Path) -> None:
    metrics = DetMetrics({0: EVIL, 1: "dog"})
    files = [str(tmp_path / f"{EVIL[1:4]}{n}.png") for n in range(20)]
    for n, file in enumerate(files[:-1]):
        cv2.imwrite(file, np.full((40, 60, 3), 10 * n, np.uint8))
        one, box = np.zeros(1, int), np.array([[2, 3, 30, 20]], np.float32)
        metrics.update(
            tp=np.ones((1, 10), bool), conf=np.ones(1), pred_cls=one, pred_img=one, target_cls=one, target_img=one,
            image_files=[file], pred_box=box, target_box=box,
        )  # fmt: skip
    metrics.process()
    result = replace(train_result(), detection=metrics, history=[{"epoch": n, "train/box_loss": n} for n in (1.0, 2.0)])
    page = result._repr_html_()
    (curve,) = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    drawing = base64.b64decode(curve).decode()
    assert drawing.startswith("<svg xmlns=") and ">box loss</tspan>" in drawing and '<path class="curve"' in drawing
    tiles = [picture_of(data) for data in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)]
    assert len(tiles) == 6 and all(tile.shape == (149, 224, 3) for tile in tiles), "spread over the split"
    levels = [int(np.median(tile)) for tile in tiles]
    assert levels == sorted(levels) and levels[0] < 5 and levels[-1] > 170
    assert "onerror='" not in page and "Results per class" in page

    gone = replace(result, detection=metrics)
    for file in files[:-1]:
        Path(file).unlink()
    assert "image/jpeg" not in gone._repr_html_(), "files that have gone are left out"


def picture_of(data: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


def test_a_list_of_results_is_a_grid_and_a_part_of_it_is_one_too() -> None:
    box = np.array([[10, 10, 50, 40, 0.9, 0]])
    found = ResultList(Results(np.zeros((60, 90, 3), np.uint8), f"{n}.jpg", {0: EVIL}, box) for n in range(15))
    page = found._repr_html_()
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert len(pictures) == 12 and "and 3 more" in page and "onerror='" not in page and "0.jpg 60x90: 1 " in page
    drawn = picture_of(pictures[0])
    assert drawn.shape == (149, 224, 3)
    assert drawn[100, 25].max() > 60, "the left side of the box, at the scale of the tile: 10 / 90 * 224"
    assert drawn[75, 75].max() < 20 and drawn[140, 200].max() < 20
    assert isinstance(found[:2], ResultList) and isinstance(found[0], Results) and list(found[:2]) == list(found)[:2]
