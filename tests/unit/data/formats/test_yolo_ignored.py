"""YOLO text: areas to ignore in files of their own, and outlines that become boxes and say so."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from eyas.data import build_index, check_dataset
from eyas.data.formats import YoloText, yolo
from eyas.data.formats.yolo import TextRules
from small_coco import make_image, read


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for kind in ("images", "labels", "ignored"):
        (tmp_path / f"set/{kind}/train").mkdir(parents=True)
    for name in ("a", "b"):
        make_image(tmp_path / f"set/images/train/{name}.png", 16, 16)
        (tmp_path / f"set/labels/train/{name}.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    return tmp_path / "set/images/train"


def source(images: Path, **rules: object) -> YoloText:
    return YoloText([images], num_classes=2, rules=TextRules(**rules))  # type: ignore[arg-type]


def test_areas_of_a_class_and_of_every_class(images: Path) -> None:
    file = images.parents[1] / "ignored/train/a.txt"
    file.write_text("-1 0.5 0.5 1 1\n\n0 0.25 0.25 0.5 0.5\n0 0.25 0.25 0.5 0.5\n2 0.5 0.5 1 1\n1 0.5\n")
    found = read(source(images))
    assert found.labels["a.png"].ignored.cls.tolist() == [-1, 0, 0]
    np.testing.assert_array_equal(
        found.labels["a.png"].ignored.boxes[:2], np.float32([[0.5, 0.5, 1, 1], [0.25] * 2 + [0.5] * 2])
    )
    assert found.labels["a.png"].cls == [1] and not len(found.labels["b.png"].ignored.cls)
    assert found.problems == {"class out of range": 1, "bad column count": 1} and str(file) in found.messages
    assert found.unused == {}, "they are no labels without an image"


def test_ids_are_those_of_the_label_files(images: Path) -> None:
    (images.parents[1] / "ignored/train/b.txt").write_text("1 0.5 0.5 1 1\n2 0.5 0.5 1 1\n")
    assert read(source(images, ids=(1, 2))).labels["b.png"].ignored.cls.tolist() == [0, 1]


def test_an_image_may_have_areas_and_no_label_file(images: Path) -> None:
    (images.parents[1] / "labels/train/a.txt").unlink()
    (images.parents[1] / "ignored/train/a.txt").write_text("0 0.5 0.5 1 1\n")
    found = read(source(images))
    assert found.problems == {} and found.labels["a.png"].ignored.cls == [0] and not len(found.labels["a.png"].cls)


def test_both_files_of_an_image_tell_of_a_change(images: Path) -> None:
    file = images.parents[1] / "ignored/train/a.txt"

    def key() -> str:
        data = check_dataset(
            {"path": images.parents[1], "train": "images/train", "names": ["x", "y"]}, splits=("train",)
        )
        return build_index(data["train"], names=data["names"], cache_dir=images.parents[2] / "cache").cache_key

    keys = [key()]
    file.write_text("0 0.5 0.5 1 1\n")
    keys.append(key())
    file.write_text("1 0.5 0.5 1 1\n")
    os.utime(file, ns=(2**61, 2**61))
    keys.append(key())
    file.unlink()
    assert key() == keys[0] and len({*keys}) == 3
    assert source(images).watched() is not None
    file.write_text("0 0.5 0.5 1 1\n")
    again = source(images)
    read(again)
    assert again.watched() is None, "two files of one image cannot be looked at as one"


def test_a_folder_of_areas_that_comes_later_is_noticed(images: Path) -> None:
    before = images.parents[1]
    os.rmdir(before / "ignored/train")
    os.rmdir(before / "ignored")
    watched = source(images)
    read(watched)
    assert str(before) in (watched.watched() or [])


def test_outlines_become_boxes_and_say_so(images: Path) -> None:
    rows = "1 0.5 0.5 0.5 0.5\n0 0.25 0.25 0.75 0.25 0.5 0.75\n0 0 0 1 0 1 1\n"
    (images.parents[1] / "labels/train/a.txt").write_text(rows)
    found = read(source(images))
    assert found.problems == {yolo.OUTLINE: 1} and "2 of the rows" in found.messages
    assert found.labels["a.png"].problems[0].line == 2
    np.testing.assert_array_equal(found.labels["a.png"].boxes[1:], np.float32([[0.5] * 4, [0.5, 0.5, 1, 1]]))
