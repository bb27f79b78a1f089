"""From one format to another and back, nothing that a training sees changes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from eyas import cli
from eyas.data import check_dataset
from eyas.data.convert import WRITERS, convert
from eyas.data.formats import YoloText
from eyas.data.formats.pixels import normalised, to_pixels
from small_coco import make_image, read

FORMS = tuple(WRITERS)
# Sizes from a thousandth of a px on, centres as YOLO text may have them.
CENTRE, EXTENT = st.floats(2**-10, 1 + 2**-7, width=32), st.floats(2**-20, 1.0, width=32)
BOX = st.tuples(CENTRE, CENTRE, EXTENT, EXTENT)
IMAGE = st.tuples(
    st.lists(st.tuples(st.integers(0, 2), BOX), max_size=3), st.lists(st.tuples(st.integers(-1, 2), BOX), max_size=2)
)


def seen(folder: Path) -> dict[str, Any]:
    """All that a training sees of a data set: classes and labels by split and image."""
    data = check_dataset(folder, splits=(), optional=("train", "val"))
    found: dict[str, Any] = {"names": data["names"], "val_fraction": data["val_fraction"]}
    for split in ("train", "val"):
        source = data[split] if not isinstance(data[split], list) else YoloText(data[split], num_classes=data["nc"])
        if not data[split]:
            continue
        told = read(source)
        assert told.problems == {} and told.missing == []
        found[split] = {
            name: [array.tobytes() for array in (labels.cls, labels.boxes, *labels.ignored)]
            for name, labels in told.labels.items()
        }
    return found


def rows(objects: list[tuple[int, tuple[float, ...]]]) -> str:
    lines = dict.fromkeys(f"{cls} {' '.join(str(np.float32(value)) for value in box)}" for cls, box in objects)
    return "".join(f"{line}\n" for line in lines)


def write_yolo(folder: Path, images: list[tuple[Any, Any]], width: int, height: int) -> None:
    for i, (objects, ignored) in enumerate(images):
        split = "val" if i % 2 else "train"
        make_image(folder / f"images/{split}/deep/{i}.png", height, width)
        for kind, content in (("labels", objects), ("ignored", ignored)):
            file = folder / kind / split / f"deep/{i}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(rows(content))
    names = {"names": ["cat", "a & <b>", "5"], "train": "images/train", "val": "images/val"}
    (folder / "data.yaml").write_text(yaml.safe_dump(names))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(IMAGE, min_size=2, max_size=3), st.integers(10, 700), st.integers(10, 700), st.permutations(FORMS))
def test_any_way_round_nothing_changes(
    own_cache: Path, images: list[tuple[Any, Any]], width: int, height: int, way: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        write_yolo(Path(place) / "0", images, width, height)
        expected = seen(Path(place) / "0")
        for step, form in enumerate([*way, "yolo"], start=1):
            reports = convert(Path(place) / f"{step - 1}", form, Path(place) / f"{step}", images="link")
            assert seen(Path(place) / f"{step}") == expected
            assert sum(report.images for report in reports.values()) == len(images)


@settings(max_examples=80, deadline=None)
@given(st.lists(BOX, min_size=1, max_size=4), st.integers(10, 20_000), st.integers(10, 20_000), st.booleans())
def test_px_read_back_as_the_same_float32(boxes: list[Any], height: int, width: int, corners: bool) -> None:
    labels = np.array(boxes, np.float32)
    values, exact = to_pixels(labels, height, width, corners=corners)
    if corners:
        values = np.hstack([values[:, :2], values[:, 2:] - values[:, :2]])
    np.testing.assert_array_equal(normalised(values, height, width).astype(np.float32), labels)
    assert exact.all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 4000)] * 4), min_size=1, max_size=4), st.sampled_from([640, 427, 3999, 12_000])
)
def test_whole_px_stay_whole_px(boxes: list[Any], side: int) -> None:
    pixels = np.array(boxes, np.float64)
    assume((pixels[:, 2:] > 0).all())
    values, exact = to_pixels(normalised(pixels, side, side).astype(np.float32), side, side)
    np.testing.assert_array_equal(values, pixels)
    assert exact.all()


def test_where_no_px_read_back_it_is_said() -> None:
    """A centre a billionth of its box away from the edge of the image: float64 holds one of both, not the sum."""
    _, exact = to_pixels(np.float32([[1e-12, 0.5, 1, 0.5], [0.5, 0.5, 0.5, 0.5]]), 640, 480)
    assert exact.tolist() == [False, True]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write_yolo(tmp_path / "set", [([(1, (0.5, 0.5, 0.5, 0.25))], [(2, (0.5, 0.5, 1, 1))]), ([], [])], 40, 30)
    return tmp_path / "set"


def test_the_command_prints_counts_and_overwrites_nothing(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = small.parent / "coco"
    assert cli.main(["convert", f"data={small}", "to=coco", f"out={out}"]) == 0
    printed = capsys.readouterr().out
    assert "train: 1 images (0 background), 1 boxes" in printed and "val: 1 images (1 background)" in printed
    assert (out / "images/train/0.png").read_bytes() == (small / "images/train/deep/0.png").read_bytes()
    assert cli.main(["convert", f"data={small}", "to=voc", f"out={out}"]) == 1
    assert "is there already, and not empty" in capsys.readouterr().err and not (out / "JPEGImages").exists()
    assert sorted(path.name for path in small.parent.iterdir()) == ["coco", "set"], "nothing half is left"


def test_areas_to_ignore_are_left_out_only_on_request(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for drop, carried in (("false", 1), ("true", 0)):
        out = small.parent / drop
        assert (
            cli.main(["convert", f"data={small}", "to=yolo", f"out={out}", f"drop_ignored={drop}", "images=link"]) == 0
        )
        assert len([*out.glob("ignored/**/*.txt")]) == carried
        printed = capsys.readouterr().out
        assert ("Eyas alone reads" in printed) == bool(carried)
        assert ("1 areas to ignore were left out" in printed) == (not carried)
    assert (small.parent / "true/images/train/0.png").is_symlink()


def test_a_share_to_hold_out_stays_one(small: Path) -> None:
    description = {"path": str(small), "train": "images", "val": 0.5, "names": ["a", "b", "c"]}
    convert(description, "coco", small.parent / "out")
    assert seen(small.parent / "out")["val_fraction"] == 0.5
    assert yaml.safe_load((small.parent / "out/data.yaml").read_text())["val"] == 0.5


def test_an_image_whose_areas_to_ignore_alone_are_right_is_carried_as_it_is_trained_on(small: Path) -> None:
    (small / "labels/train/deep/0.txt").write_text("1 0.5 0.5 2 0.25\n")
    report = convert(small, "voc", small.parent / "out")["train"]
    assert report.images == 1 and report.left_out == {} and report.counts == {"coordinate out of range": 1}
    ((_, boxes, _, where),) = seen(small.parent / "out")["train"].values()
    assert boxes == b"" and np.frombuffer(where, np.float32).tolist() == [0.5, 0.5, 1, 1]


def test_what_cannot_be_used_is_told_and_left_out(small: Path) -> None:
    (small / "labels/train/deep/0.txt").write_text("1 0.5 0.5 2 0.25\n")
    (small / "ignored/train/deep/0.txt").unlink()
    make_image(small / "images/train/good.png", 30, 40)
    (small / "images/train/bad.png").write_bytes(b"none")
    report = convert(small, "voc", small.parent / "out")["train"]
    assert report.counts == {"coordinate out of range": 1, "not an image": 1} and report.images == 1
    assert report.left_out == {"no usable label row": 1, "not an image": 1}
    assert [path.name for path in (small.parent / "out/JPEGImages/train").iterdir()] == ["good.png"]
    (small / "images/train/good.png").unlink()
    with pytest.raises(ValueError, match="None of the images for train can be used"):
        convert(small, "voc", small.parent / "none")
    assert not (small.parent / "none").exists()


@pytest.mark.parametrize(
    ("change", "tells"),
    [
        ({"to": "yolov5"}, r"to=yolov5: use one of yolo, coco, voc\. Did you mean 'yolo'"),
        ({"images": "move"}, "images=move: use one of copy, link"),
        ({"data": {"names": ["a"]}}, "describes no images"),
        ({"data": {"train": "images/train", "names": ["a", " b", "c"]}, "to": "voc"}, "' b' cannot stand in a file"),
    ],
)
def test_what_makes_no_sense_is_refused(small: Path, change: dict[str, Any], tells: str) -> None:
    given = {"data": small, "to": "coco", "out": small.parent / "out", **change}
    if isinstance(given["data"], dict):
        given["data"] = {"path": str(small), **given["data"]}
    with pytest.raises(ValueError, match=tells):
        convert(**given)
    assert not (small.parent / "out").exists()


def test_two_images_of_one_label_file_are_refused(small: Path) -> None:
    assert cv2.imwrite(str(small / "images/train/deep/0.jpg"), np.zeros((30, 40, 3), np.uint8))
    with pytest.raises(ValueError, match=r"0\.jpg and 0\.png of train would share one label file"):
        convert(small, "coco", small.parent / "out")


def test_a_home_folder_of_nobody_is_refused(small: Path) -> None:
    with pytest.raises(ValueError, match=r"^out=~nobody-of-this-name/o: there is no home folder ~nobody-of-this-name;"):
        convert(small, "coco", "~nobody-of-this-name/o")


def test_ids_of_label_files_may_begin_with_1(small: Path) -> None:
    convert(small, "coco", small.parent / "out", ids_start=1)
    data = check_dataset(small.parent / "out")
    assert read(data["train"]).labels["0.png"].cls.tolist() == [0]
