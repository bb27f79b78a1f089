"""The seam of label formats, by a format of the tests: boxes in px of all images in one JSON file, ids with gaps."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eyas.data import FORMATS, ImageIndex, LabelSource, Problem, build_index, check_dataset
from eyas.data.files import ABSENT, FileStat, stat_of
from eyas.data.formats import LabelProblem, Labels
from eyas.data.image_header import ImageHeader

SIZES = {"a.png": (30, 40), "b.png": (20, 50), "c.png": (16, 16)}  # height, width
CATEGORIES = {7: "cat", 3: "dog", 90: "owl"}
OBJECTS = [
    ["a.png", 3, 4, 6, 20, 12],
    ["a.png", 90, 0, 0, 40, 30],
    ["b.png", 7, 5, 5, 10, 10],
    ["a.png", 7, 1, 1, 2, 3],
]


class OneJson(LabelSource):
    """{"images": [name], "categories": {id: name}, "objects": [[image, category, left, top, width, height]]}."""

    def __init__(self, file: Path, names: Mapping[int, str] | None) -> None:
        self.file = file
        content = json.loads(file.read_text())
        categories = {int(key): name for key, name in content["categories"].items()}
        self.names = dict(enumerate(categories.values())) if names is None else names
        by_name = {name: i for i, name in self.names.items()}
        self.class_ids = {key: by_name.get(name, -1) for key, name in categories.items()}
        self.rows: dict[str, list[tuple[int, list[float]]]] = {
            str(file.parent / name): [] for name in content["images"]
        }
        self.strays = []
        for position, (image, *row) in enumerate(content["objects"]):
            path = str(file.parent / image)
            self.rows[path].append((position, row)) if path in self.rows else self.strays.append((position, image))

    def __str__(self) -> str:
        return str(self.file)

    @property
    def identity(self) -> list[object]:
        return ["one json", 1, str(self.file)]

    def images(self) -> list[tuple[str, FileStat]]:
        return sorted((path, stat_of(path)) for path in self.rows)

    def label_stats(self, images: Sequence[str]) -> list[FileStat]:
        return [stat_of(str(self.file)) if self.rows[image] else ABSENT for image in images]

    def label_file(self, image: str) -> str:
        return str(self.file)

    def labels(self, image: str, stat: FileStat, header: ImageHeader) -> Labels:
        cls, boxes, problems = [], [], []
        for position, (category, left, top, width, height) in self.rows[image]:
            if self.class_ids[category] < 0 or width <= 0:
                problems.append(LabelProblem(0, "bad object", f"number {position}"))
                continue
            cls.append(self.class_ids[category])
            sides = (header.width, header.height) * 2
            boxes.append(np.array((left + width / 2, top + height / 2, width, height)) / sides)
        return Labels(np.array(cls), np.array(boxes).reshape(-1, 4), problems)

    def problems(self) -> list[Problem]:
        return [Problem(str(self.file), 0, "unknown image", f"{name} of number {i}") for i, name in self.strays]

    def explain(self, images: Sequence[str]) -> str:
        return "Nothing is labelled." if images else "Nothing is listed."


def open_json(entry: object, root: Path, names: Mapping[int, str] | None) -> LabelSource | None:
    file = root / str(entry)
    return OneJson(file, names) if file.suffix == ".json" and file.is_file() else None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(FORMATS, "one json", open_json)
    for name, (height, width) in SIZES.items():
        cv2.imwrite(str(tmp_path / name), np.zeros((height, width, 3), np.uint8))
    write(tmp_path / "train.json")
    write(tmp_path / "val.json", images=["b.png"], objects=OBJECTS[2:3])
    return tmp_path


def write(file: Path, **changes: Any) -> Path:
    file.write_text(json.dumps({"images": list(SIZES), "categories": CATEGORIES, "objects": OBJECTS} | changes))
    return file


def described(folder: Path, **more: Any) -> dict[str, Any]:
    return check_dataset({"path": folder, "train": "train.json", "val": "val.json"} | more)


def built(data: Mapping[str, Any], folder: Path, **options: Any) -> ImageIndex:
    return build_index(data["train"], **{"names": data["names"], "cache_dir": folder / "cache", **options})


def test_names_come_from_the_annotations_and_ids_lose_their_gaps(folder: Path) -> None:
    data = described(folder)
    assert data["names"] == {0: "cat", 1: "dog", 2: "owl"} and data["nc"] == 3
    index = built(data, folder)
    assert [Path(index.path(i)).name for i in range(len(index))] == ["a.png", "b.png", "c.png"]
    cls, boxes = index.labels(0)
    assert cls.dtype == boxes.dtype == np.float32
    assert cls.tolist() == [1, 2, 0]
    np.testing.assert_allclose(boxes[:2], [[14 / 40, 12 / 30, 20 / 40, 12 / 30], [0.5, 0.5, 1, 1]], rtol=1e-6)
    np.testing.assert_allclose(index.labels(1)[1], [[0.2, 0.5, 0.2, 0.5]], rtol=1e-6)
    assert index.objects().tolist() == [3, 1, 0]
    assert index.report.instances == {"cat": 2, "dog": 1, "owl": 1}


def test_the_description_may_order_the_names_anew(folder: Path) -> None:
    data = described(folder, names=["owl", "cat", "dog"])
    assert built(data, folder).labels(0)[0].tolist() == [2, 0, 1]


def test_splits_that_disagree_on_the_names_are_an_error(folder: Path) -> None:
    write(folder / "val.json", categories={1: "owl"}, images=["c.png"], objects=[])
    with pytest.raises(ValueError, match=r"annotations of val \(.*val\.json\) have the classes \{0: 'owl'\}"):
        described(folder)
    with pytest.raises(ValueError, match="nc=4, but names lists 3 classes"):
        described(folder, val="train.json", nc=4)


def test_classes_and_single_class_are_the_business_of_the_index(folder: Path) -> None:
    data = described(folder)
    assert built(data, folder, classes=[0]).objects().tolist() == [1, 1, 0]
    one = built(data, folder, names={0: "item"}, single_cls=True, classes=[0, 2])
    assert one.cls.tolist() == [0, 0, 0]
    assert built(data, folder, names={0: "item"}, single_cls=True).report.instances == {"item": 4}
    # The same file and the same names of the run, but other ids: nothing of the cache may be used.
    chosen = {"names": {0: "item"}, "single_cls": True, "classes": [1]}
    assert built(data, folder, **chosen).objects().tolist() == [1, 0, 0]
    anew = described(folder, names=["owl", "cat", "dog"])
    assert built(anew, folder, **chosen).objects().tolist() == [1, 1, 0]


def test_ids_beyond_the_names_are_never_stored(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.json gives class ids from 0 to 2 for 2 classes"):
        built(described(folder), folder, names={0: "cat", 1: "dog"})


def test_trouble_is_told_with_the_file(folder: Path) -> None:
    objects = [*OBJECTS, ["b.png", 3, 1, 1, 0, 5], ["z.png", 3, 1, 1, 2, 2]]
    write(folder / "train.json", images=[*SIZES, "gone.png"], objects=objects)
    report = built(described(folder), folder).report
    file = str(folder / "train.json")
    assert report.problems == [
        Problem(file, 0, "bad object", "number 4"),
        Problem(str(folder / "gone.png"), 0, "missing image", "listed but not there"),
        Problem(file, 0, "unknown image", "z.png of number 5"),
    ]
    assert built(described(folder), folder).report == report, "from the cache"


def test_the_cache_holds_until_the_file_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = built(described(folder), folder)
    with monkeypatch.context() as patch:
        patch.setattr(OneJson, "labels", lambda *_: pytest.fail("read again"))
        assert built(described(folder), folder).fingerprint == before.fingerprint
    size = (folder / "train.json").stat().st_size
    write(folder / "train.json", objects=[["a.png", 7, 4, 6, 20, 12], *OBJECTS[1:]])
    os.utime(folder / "train.json", ns=(1, 1))
    assert (folder / "train.json").stat().st_size == size
    after = built(described(folder), folder)
    assert after.labels(0)[0].tolist() == [0, 2, 0] and after.cache_key != before.cache_key
    assert len(list((folder / "cache/index").iterdir())) == 1
    data = described(folder, names=["owl", "cat", "dog"])
    assert built(data, folder).labels(0)[0].tolist() == [1, 0, 1], "other ids for the same file"


def test_a_split_without_labels_and_one_without_images(folder: Path) -> None:
    write(folder / "train.json", objects=[])
    with pytest.raises(ValueError, match="None of the 3 training images has a label file. Nothing is labelled.$"):
        built(described(folder), folder)
    write(folder / "train.json", images=[], objects=[])
    with pytest.raises(ValueError, match=r"No images for train in .*train\.json\. Nothing is listed\.$"):
        built(described(folder), folder)


def test_a_description_may_carry_a_source_itself(folder: Path) -> None:
    source = OneJson(folder / "train.json", None)
    data = check_dataset({"train": source, "val": source})
    assert data["train"] is source and data["names"] == {0: "cat", 1: "dog", 2: "owl"}
    assert built(data, folder).objects().tolist() == [3, 1, 0]


def test_a_file_that_is_not_there_is_missed_like_any_other(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"train: trian\.json does not exist.* Did you mean .*train\.json\?"):
        described(folder, train="trian.json", names=["cat"])


def test_two_formats_that_claim_one_split(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "other json", open_json)
    with pytest.raises(ValueError, match=r"train\.json is claimed by several label formats: one json, other json"):
        described(folder)


def test_what_no_format_claims_is_yolo_text(folder: Path) -> None:
    data = check_dataset({"path": folder, "train": ".", "val": ".", "names": ["x"]})
    assert data["train"] == [folder.resolve()]
