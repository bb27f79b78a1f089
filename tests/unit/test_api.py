"""``YOLO`` without a training: what predicting leaves out and writes, which weights are taken over or refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from eyas import YOLO
from eyas.checkpoint import FORMAT, CheckpointError, save_checkpoint
from eyas.models import DetectionModel
from eyas.train import TrainResult
from small_run import plan_of

IMAGE = np.full((32, 64, 3), 200, np.uint8)  # 4x8, 2x4 and 1x2 anchors


@pytest.fixture
def yolo(tiny_model: Path) -> YOLO:
    """A network that is 30 % sure in each cell of 8 pixels and 20 % sure in each larger one, whatever it sees."""
    yolo = YOLO(tiny_model)
    with torch.no_grad():
        for score, branch in zip((0.3, 0.2, 0.2), yolo.model.head.one2one_cv3, strict=True):
            branch[-1].weight.zero_()
            branch[-1].bias.fill_(-20.0)[0] = math.log(score / (1 - score))
    return yolo


def content_of(model: DetectionModel, **tensors: torch.Tensor) -> dict[str, Any]:
    """A checkpoint of a model, with further tensors."""
    facts = {"yaml": model.yaml, "nc": model.nc, "names": model.names, "train_args": {}}
    return {"eyas": {"format": FORMAT, "version": "0"}, "model": {**model.state_dict(), **tensors}, **facts}


def test_predict_leaves_out_scores_up_to_a_quarter(yolo: YOLO) -> None:
    assert len(yolo.predict(IMAGE, imgsz=64, conf=0.1)[0]) == 32 + 8 + 2
    (found,) = yolo.predict(IMAGE, imgsz=64)
    np.testing.assert_allclose(found.confidence, np.full(32, 0.3), rtol=1e-5)


def test_predict_writes_nothing_unasked(yolo: YOLO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(yolo.predict(IMAGE, imgsz=64)) == 1
    assert list(tmp_path.iterdir()) == []
    yolo.predict(IMAGE, imgsz=64, save=True)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video of four frames."""
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 32))
    for _ in range(4):
        writer.write(IMAGE)
    writer.release()
    return tmp_path / "clip.avi"


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_video_is_predicted_written_and_followed(
    yolo: YOLO, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = yolo.predict(clip, imgsz=64, batch=3, vid_stride=2, save_txt=True, save_frames=True, show_labels=False)
    assert [(result.frame, len(result)) for result in found] == [(1, 32), (3, 32)]
    folder = tmp_path / "runs" / "detect" / "predict"
    assert files_in(folder) == [
        f"{p}{n}.{s}" for p, s in (("clip_frames/", "jpg"), ("labels/clip_", "txt")) for n in (1, 3)
    ]
    tracked = list(yolo.track(clip, stream=True, imgsz=64, save=True))
    assert all(result.boxes.id.tolist() == tracked[0].boxes.id.tolist() for result in tracked) and len(tracked) == 4
    assert len(tracked[0]) == 32, "weak detections begin no track"
    assert files_in(tmp_path / "runs" / "detect" / "track") == ["clip.mp4"]


def test_frames_one_by_one_are_tracked_as_a_video(yolo: YOLO) -> None:
    ids = [yolo.track(frame, persist=True, imgsz=64)[0].boxes.id.tolist() for frame in (IMAGE, IMAGE)]
    assert ids[0] == ids[1] == list(range(1, 33))
    yolo.follower.tracker._next = 1000  # type: ignore[union-attr]
    assert yolo.track(IMAGE, imgsz=64)[0].boxes.id.tolist() == ids[0], "without persist it begins anew"


def test_what_a_prediction_does_not_use_is_refused(yolo: YOLO) -> None:
    for options, words in (({"line_width": 3}, "line_width say how"), ({"project": "x"}, "project say where")):
        with pytest.raises(ValueError, match=words):
            yolo.predict(IMAGE, **options)
    with pytest.raises(ValueError, match="there is 'bytetrack'"):
        yolo.track(IMAGE, tracker="sort")


def test_a_validation_in_tiles_looks_at_every_tile(yolo: YOLO, digits_tiny: Path, tmp_path: Path) -> None:
    """The network sees one object per cell, whatever it is given, so that the boxes count the tiles."""
    given = {
        "data": str(digits_tiny),
        "imgsz": 64,
        "conf": 0.25,
        "max_det": 1000,
        "workers": 0,
        "plots": False,
        "single_cls": True,
    }
    counts = {}
    for tile in (64, 4096):
        yolo.val(**given, tile=tile, overlap=0.0, save_txt=True, verbose=False, save_dir=str(tmp_path / str(tile)))
        files = list((tmp_path / str(tile) / "labels").glob("*.txt"))
        counts[tile] = [len(file.read_text().splitlines()) for file in files]
    assert set(counts[4096]) == {64} and set(counts[64]) == {4 * 64}


@pytest.mark.parametrize(("best_epoch", "kept"), [(2, 0.25), (0, 0.75)])
def test_the_best_weights_are_adopted(yolo: YOLO, best_epoch: int, kept: float, tmp_path: Path) -> None:
    """Epoch 0 says that no epoch was measured; then the last weights are all there is."""
    best, last = tmp_path / "best.pt", tmp_path / "last.pt"
    for path, value in ((best, 0.25), (last, 0.75)):
        with torch.no_grad():
            yolo.model.model[0].conv.weight.fill_(value)
        save_checkpoint(content_of(yolo.model), path)
    plan = plan_of(epochs=3, batches=1, accumulate=1, warmup_batches=0)
    result = TrainResult({}, None, best_epoch, 3, tmp_path, best, last, [], plan, model_class=DetectionModel)
    assert yolo.adopt(result) is result
    assert (yolo.model.model[0].conv.weight == kept).all()
    assert Path(yolo.name) == Path(yolo.ckpt_path) == (best if best_epoch else last)


def test_a_checkpoint_with_tensors_of_other_layers_is_refused(yolo: YOLO, tmp_path: Path) -> None:
    save_checkpoint(content_of(yolo.model, **{"gate.weight": torch.ones(3)}), tmp_path / "more.pt")
    with pytest.raises(CheckpointError, match=r"1 of its own fit none \(gate\.weight\)"):
        YOLO(tmp_path / "more.pt")
    save_checkpoint(content_of(yolo.model, **{"criterion.weight": torch.ones(3)}), tmp_path / "criterion.pt")
    assert YOLO(tmp_path / "criterion.pt").names == yolo.names, "what trained a network is no part of it"
