"""Large images in tiles: the detections are those of the whole image, in prediction and in validation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import blobs
from eyas.augment.letterbox import letterbox_into
from eyas.evaluate import DetectionValidator, Predictor
from eyas.evaluate.close_up import CloseUp
from eyas.evaluate.tiling import Tiling, merged

WIDE = (192, 256)


def in_tiles(image: NDArray[np.uint8], tiling: Tiling, batch: int = 3) -> Tensor:
    def find(tiles: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        assert len(tiles) <= batch
        return [blobs.seen(tile) for tile in tiles]

    return tiling.find(image, find, batch=batch, max_det=300)


def as_set(rows: Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in rows[:, [0, 1, 2, 3, 5]].tolist()}


def rectangles(seed: int, shape: tuple[int, int], sides: tuple[int, int]) -> list[blobs.Rectangle]:
    """Rectangles that do not touch each other."""
    rng = np.random.default_rng(seed)
    taken = np.zeros(shape, bool)
    found: list[blobs.Rectangle] = []
    for _ in range(60):
        w, h = rng.integers(*sides, 2)
        x, y = rng.integers(0, shape[1] - w), rng.integers(0, shape[0] - h)
        if not taken[max(y - 2, 0) : y + h + 2, max(x - 2, 0) : x + w + 2].any():
            taken[y : y + h, x : x + w] = True
            found.append((int(x), int(y), int(x + w), int(y + h), int(rng.integers(2))))
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sides", [(5, 12), (5, 60), (40, 150)], ids=["small", "mixed", "larger than a tile"])
def test_tiles_find_what_the_whole_image_shows(seed: int, sides: tuple[int, int]) -> None:
    wanted = rectangles(seed, WIDE, sides)
    found = in_tiles(blobs.painted(WIDE, wanted), Tiling(64, 0.25))
    assert as_set(found) == set(wanted) and len(found) == len(wanted)
    assert (found[:-1, 4] >= found[1:, 4]).all()


@pytest.mark.parametrize(("shape", "side", "overlap"), [((100, 230), 64, 0.2), ((64, 65), 64, 0), ((30, 90), 40, 0.9)])
def test_tiles_cover_the_image_and_overlap(shape: tuple[int, int], side: int, overlap: float) -> None:
    windows = Tiling(side, overlap).windows(shape)
    covered = np.zeros(shape, int)
    for x1, y1, x2, y2 in windows.tolist():
        assert x1 >= 0 and y1 >= 0 and (x2 - x1, y2 - y1) == (min(side, shape[1]), min(side, shape[0]))
        covered[y1:y2, x1:x2] += 1
    assert covered.min() == 1 and len({tuple(window) for window in windows.tolist()}) == len(windows)
    starts = sorted({x for x, *_ in windows.tolist()})
    assert all(b - a <= side * (1 - overlap) for a, b in itertools.pairwise(starts))


def two_tiles(left: list[list[float]], right: list[list[float]], **settings: Any) -> Tensor:
    """Detections of an image 40 x 100 that tiles 0..60 and 40..100 see, in its pixels."""
    windows = np.array([[0, 0, 60, 40], [40, 0, 100, 40]])
    moved = torch.tensor(right).reshape(-1, 6) - torch.tensor([40, 0, 40, 0, 0, 0])
    return merged([torch.tensor(left).reshape(-1, 6), moved], windows, (40, 100), **settings)


def test_the_rule_for_two_tiles() -> None:
    fragment, whole = [40, 5, 60, 25, 0.9, 0], [43, 5, 75, 25, 0.8, 0]
    assert two_tiles([fragment], [whole])[0, :5].tolist() == pytest.approx([43, 5, 75, 25, 0.9]), "whole, best score"
    ends = two_tiles([[10, 5, 60, 25, 0.6, 0]], [[40, 6, 90, 26, 0.7, 0]])
    assert ends[0].tolist() == pytest.approx([10, 5, 90, 26, 0.7, 0]), "two fragments are one object"
    other = two_tiles([fragment], [[*whole[:5], 1]])
    assert len(other) == 2, "another class is another object"
    assert two_tiles([fragment], [[*whole[:5], 1]], agnostic=True).tolist()[0][5] == 0
    apart = two_tiles([[5, 5, 35, 25, 0.6, 0]], [[62, 5, 90, 25, 0.7, 0]])
    assert len(apart) == 2, "neither is where both tiles see"
    inside = two_tiles([[42, 5, 58, 35, 0.6, 0], [44, 8, 50, 14, 0.5, 0]], [[42, 5, 58, 35, 0.7, 0]])
    assert len(inside) == 2, "a small object before a large one stays"
    crowd = two_tiles([[42, 5, 52, 25, 0.6, 0], [44, 5, 54, 25, 0.5, 0]], [[43, 5, 53, 25, 0.7, 0]])
    assert len(crowd) == 2, "two objects of one tile stay two"


def test_nothing_found_is_nothing() -> None:
    assert in_tiles(np.zeros((100, 200, 3), np.uint8), Tiling(64)).shape == (0, 6)


@pytest.mark.parametrize(("side", "overlap"), [(0, 0.2), (64, 1.0), (64, -0.1)])
def test_tiles_that_cannot_be_are_refused(side: int, overlap: float) -> None:
    with pytest.raises(ValueError, match="tiles of"):
        Tiling(side, overlap)


def test_prediction_in_tiles_and_without() -> None:
    wanted = rectangles(1, WIDE, (4, 10))
    large, small = blobs.painted(WIDE, wanted), blobs.painted((64, 48), [(8, 8, 20, 30, 1)])
    plain = Predictor(blobs.Blobs(), imgsz=64, batch=2)  # type: ignore[arg-type]  # as good as one
    tiled = Predictor(blobs.Blobs(), imgsz=64, batch=2, tiling=Tiling(64))  # type: ignore[arg-type]
    (few, same), (many, again) = plain([large, small]), tiled([large, small])
    assert as_set(many.boxes.data) == set(wanted) and as_set(few.boxes.data) != set(wanted)
    assert len(same) == 1 and torch.equal(plain([small])[0].boxes.data, again.boxes.data)
    assert torch.equal(plain([small, small])[1].boxes.data, tiled([small, small])[1].boxes.data)


def batch_of(files: list[Path], labels: list[list[blobs.Rectangle]]) -> dict[str, Any]:
    """What a loader of inputs of 64 pixels gives."""
    images = [cv2.imread(str(file)) for file in files]
    inputs = np.empty((len(images), 64, 64, 3), np.uint8)
    fits = [letterbox_into(image, out) for image, out in zip(images, inputs, strict=True)]
    boxes, shapes = [], [image.shape[:2] for image in images]
    for fit, shape, rows in zip(fits, shapes, labels, strict=True):
        for x1, y1, x2, y2, _ in rows:
            gain_x, gain_y = fit.width / shape[1], fit.height / shape[0]
            middle = [(x1 + x2) / 2 * gain_x + fit.left, (y1 + y2) / 2 * gain_y + fit.top]
            boxes.append([*middle, (x2 - x1) * gain_x, (y2 - y1) * gain_y])
    return {
        "img": torch.from_numpy(inputs[..., ::-1].copy()).permute(0, 3, 1, 2),
        "cls": torch.tensor([[row[4]] for rows in labels for row in rows]).float(),
        "bboxes": torch.tensor(boxes) / 64,
        "batch_idx": torch.tensor([i for i, rows in enumerate(labels) for _ in rows]).float(),
        "im_file": [str(file) for file in files],
        "ori_shape": shapes,
        "ratio_pad": [((f.height / s[0], f.width / s[1]), (f.left, f.top)) for f, s in zip(fits, shapes, strict=True)],
    }


def test_validation_in_tiles_measures_what_prediction_in_tiles_finds(tmp_path: Path) -> None:
    labels = [rectangles(1, WIDE, (4, 10)), [(8, 8, 30, 40, 0), (40, 4, 60, 20, 1)]]
    files = [tmp_path / "large.png", tmp_path / "small.png"]
    for file, shape, rows in zip(files, (WIDE, (64, 64)), labels, strict=True):
        cv2.imwrite(str(file), blobs.painted(shape, rows))
    loader = [batch_of(files, labels)]
    found = {}
    for name, close_up in (("whole", None), ("tiles", CloseUp(Tiling(64), 64)), ("one tile", CloseUp(Tiling(256), 64))):
        validator = DetectionValidator(
            loader, names=blobs.NAMES, verbose=False, save_dir=tmp_path / name, save_txt=True, save_conf=True,
            close_up=close_up,
        )  # fmt: skip
        found[name] = validator(model=blobs.Blobs())["metrics/mAP50-95(B)"]
    assert found["tiles"] > 0.97 and found["whole"] < 0.6 and found["one tile"] == found["whole"]
    written = {name: (tmp_path / name / "labels" / "small.txt").read_text() for name in found}
    assert written["tiles"] == written["whole"] == written["one tile"] != ""
    cls, cx, cy, w, h = np.loadtxt(tmp_path / "tiles" / "labels" / "large.txt")[:, :5].T
    corners = np.stack([(cx - w / 2) * 256, (cy - h / 2) * 192, (cx + w / 2) * 256, (cy + h / 2) * 192, cls], 1)
    assert {tuple(row) for row in corners.round().astype(int).tolist()} == set(labels[0])
