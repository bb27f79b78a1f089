"""NDJSON: a line for each image, of all splits; and lines that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyas.data import build_index, check_dataset
from eyas.data.formats import ndjson
from small_coco import Read, read


def line(image: str = "a.png", *objects: dict[str, Any], **more: Any) -> str:
    return json.dumps({"image": image, "width": 40, "height": 30, "objects": list(objects), **more})


CAT = {"class": "cat", "bbox": [4, 6, 20, 12]}
OWL = {"class": "owl", "bbox": [0, 0, 40, 30]}


def read_lines(folder: Path, *lines: str, **more: Any) -> Read:
    (folder / "x.ndjson").write_text("\n".join(lines))
    data = check_dataset(
        {"path": folder, "train": {"annotations": "x.ndjson", "images": "train"}, **more}, splits=("train",)
    )
    return read(data["train"])


def test_splits_names_and_boxes(folder: Path) -> None:
    (folder / "train/x.ndjson").write_text(
        f"{line('a.png', OWL, CAT, split='train')}\n\n{line('c.png', split='valid', width=None)}\n"
    )
    data = check_dataset(folder / "train/x.ndjson")
    assert data["names"] == {0: "cat", 1: "owl"}
    index = build_index(data["train"], names=data["names"])
    assert index.cls.tolist() == [1, 0] and index.report.counts == {}
    np.testing.assert_array_equal(index.boxes[1], np.float32([14 / 40, 12 / 30, 20 / 40, 12 / 30]))
    assert [*read(data["val"]).labels] == ["c.png"]


def test_images_of_another_split_are_named(folder: Path) -> None:
    lines = line("a.png", CAT, split="train"), line("b.png", CAT, split="val")
    (folder / "train/x.ndjson").write_text("\n".join(lines))
    for split in ("train", "val"):
        found = read(check_dataset(folder / "train/x.ndjson")[split])
        assert found.unused == {"image that the annotations do not name": 1}, "c.png"


def test_a_line_of_names_orders_them_and_lets_numbers_stand_for_them(folder: Path) -> None:
    lines = line("a.png", CAT, {"class": 0, "bbox": [1, 1, 4, 4]}), '{"names": ["owl", "cat"]}'
    assert read_lines(folder, *lines).labels["a.png"].cls.tolist() == [1, 0]
    again = read_lines(folder, line("a.png", CAT, OWL), names=["owl", "cat", "dog"])
    assert again.labels["a.png"].cls.tolist() == [1, 0]


def test_areas_to_ignore(folder: Path) -> None:
    found = read_lines(folder, line("a.png", CAT, CAT | {"ignore": True}, OWL | {"ignore": True, "class": None}))
    assert found.labels["a.png"].ignored.cls.tolist() == [0, -1] and len(found.labels["a.png"].cls) == 1


@pytest.mark.parametrize(
    ("bad", "kind", "number"),
    [
        ("{", ndjson.BAD_LINE, 2),
        ("[" * 100_000, ndjson.BAD_LINE, 2),
        ("5", ndjson.BAD_LINE, 2),
        ('{"file": "a.png"}', ndjson.NO_NAME, 2),
        (line("b.png", split=5), ndjson.BAD_LINE, 2),
        (line("b.png", 5), ndjson.BAD_LINE, 2),  # type: ignore[arg-type]
        (line("b.png", {"class": "cat"}), ndjson.NO_BOX, 2),
        (line("b.png", {"class": "cat", "bbox": [1, 2, 3, "4"]}), ndjson.NO_BOX, 2),
        (line("b.png", {"bbox": [1, 2, 3, 4]}), ndjson.UNKNOWN_CLASS, 2),
        (line("b.png", {"class": 7, "bbox": [1, 2, 3, 4]}), ndjson.UNKNOWN_CLASS, 2),
        (line("b.png", CAT | {"bbox": [1, 2, 3, -4]}, width=0), "negative size", 2),
    ],
)
def test_a_bad_line_is_told_with_its_number(folder: Path, bad: str, kind: str, number: int) -> None:
    (folder / "x.ndjson").write_text(f"{line('a.png', CAT)}\n{bad}\n")
    entry = {"annotations": "x.ndjson", "images": "train"}
    data = check_dataset({"path": folder, "train": entry}, splits=("train",))
    report = build_index(data["train"], names=data["names"]).report
    assert report.counts == {kind: 1} and report.problems[0].line == number and report.boxes == 1


@pytest.mark.parametrize(
    "lines", [[], ["{"], ['{"names": ["a", "a"]}', line()], ['{"names": ["a"]}', '{"names": ["b"]}', line()]]
)
def test_a_file_that_cannot_be_used(folder: Path, lines: list[str]) -> None:
    with pytest.raises(ValueError, match=r"x\.ndjson"):
        read_lines(folder, *lines)
