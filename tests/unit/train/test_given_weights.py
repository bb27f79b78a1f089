"""What `given_weights` makes of a name, a file and a typing mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from eyas.checkpoint import CheckpointError
from eyas.models.published import UnknownWeightsError
from eyas.train.setup import given_weights


def test_published_names_and_foreign_files_are_left_to_the_model() -> None:
    assert given_weights("rtdetr-r50-o365") == "rtdetr-r50-o365"
    assert given_weights("RTDETR-R18") == "rtdetr-r18", "in any case"
    assert given_weights("there/x.pth") == "there/x.pth"


def test_a_wrong_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownWeightsError, match="'rtdetr-r180', and no file is: did you mean 'rtdetr-r18'"):
        given_weights("rtdetr-r180")


def test_a_path_that_is_not_there_is_a_missing_file(tmp_path: Path) -> None:
    for missing in ("best.pt", "runs/rtdetr-r180", tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="no checkpoint at"):
            given_weights(missing)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("yolo26n.pt", "yolo26n"),
        ("weights/yolo11m.pt", "yolo26m"),
        ("YOLOv8s.pt", "yolo26s"),
        ("rtdetr-l.pt", "rtdetr-l"),
        ("yolo26n-seg.pt", "yolo26n"),
    ],
)
def test_weights_that_others_publish_are_answered_with_three_ways_on(name: str, model: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        given_weights(name)
    said = str(caught.value)
    assert f"no file {name}" in said and f"path/to/{Path(name).name}" in said
    assert f"model={model}.yaml" in said and "pretrained=rtdetr-r18" in said and "Apache-2.0" in said
    assert ("another task" in said) == ("-seg" in name)


def test_a_file_of_such_a_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "yolo26n.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        given_weights(tmp_path / "yolo26n.pt")
