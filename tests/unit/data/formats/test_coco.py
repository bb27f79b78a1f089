"""COCO files: classes, boxes, areas to ignore; and whatever may be wrong with a file is told, and stops nothing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eyas.data import build_index, check_dataset
from eyas.data.formats import coco as coco_format
from eyas.data.formats import table
from eyas.data.formats.outline import bounds
from small_coco import Read, content, make_image, read

Coco = Callable[..., Read]


def annotation(**fields: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 10, "category_id": 3, "bbox": [4, 6, 20, 12], **fields}


def test_classes_follow_the_ids_and_boxes_the_size(coco: Coco) -> None:
    found = coco()
    assert found.problems == {} and found.missing == []
    np.testing.assert_array_equal(found.labels["a.png"].cls, np.float32([0, 1]))  # dog 3, cat 7
    np.testing.assert_array_equal(
        found.labels["a.png"].boxes, np.float32([[14 / 40, 12 / 30, 20 / 40, 12 / 30], [0.5, 0.5, 1, 1]])
    )
    np.testing.assert_array_equal(found.labels["b.png"].boxes, np.float32([[0.2, 0.5, 0.2, 0.5]]))
    assert found.labels["b.png"].cls == [2] and not len(found.labels["c.png"].cls)
    assert found.labels["a.png"].boxes.dtype == found.labels["a.png"].cls.dtype == np.float32


def test_names_of_the_description_order_the_classes_and_others_are_told(coco: Coco) -> None:
    found = coco(names=["owl", "dog"])
    assert found.labels["a.png"].cls == [1] and found.labels["b.png"].cls == [0]
    assert found.problems == {table.UNKNOWN_CLASS: 1} and "'cat' is no class of the data set" in found.messages


def test_crowds_and_ignored_objects_are_areas_to_ignore(coco: Coco) -> None:
    found = coco(
        annotations=[
            annotation(iscrowd=1),
            annotation(ignore=1, category_id=90, bbox=[0, 0, 4, 3]),
            annotation(iscrowd=1, category_id=None),
            annotation(iscrowd=0, ignore=0),
        ]
    )
    labels = found.labels["a.png"]
    assert labels.cls.tolist() == [0] and labels.ignored.cls.tolist() == [0, 2, -1]
    np.testing.assert_array_equal(labels.ignored.boxes[1], np.float32([2 / 40, 1.5 / 30, 0.1, 0.1]))


@pytest.mark.parametrize(
    ("bad", "kind", "tells"),
    [
        ({"bbox": None}, coco_format.NO_BOX, "annotation number 2: bbox None"),
        ({"bbox": [1, 2, 3]}, coco_format.NO_BOX, r"bbox [1, 2, 3]"),
        ({"bbox": ["1", 2, 3, 4]}, coco_format.NO_BOX, "annotation number 2"),
        ({"bbox": [1, 2, -3, 4]}, "negative size", "width -3, height 4 px"),
        ({"bbox": [1, 2, 0, 4]}, "zero size", "cannot be learnt"),
        ({"bbox": [1, 2, float("nan"), 4]}, "not a number", "annotation number 2: box 1, 2, nan, 4"),
        ({"bbox": [1, 2, 10**400, 4]}, "not a number", "inf"),
        ({"bbox": [100, 2, 3, 4]}, "coordinate out of range", "lies outside the image"),
        ({"category_id": 4}, table.UNKNOWN_CLASS, "category_id 4; the file has ids 3, 7, 90"),
        ({"category_id": [4]}, table.UNKNOWN_CLASS, "category_id [4]"),
        ({"image_id": 99}, coco_format.UNKNOWN_IMAGE, "annotation number 2: image_id 99"),
        ({"image_id": "10"}, coco_format.UNKNOWN_IMAGE, "image_id '10'"),
        ({"image_id": {}}, coco_format.UNKNOWN_IMAGE, "image_id {}"),
        ({"id": 5}, "duplicate row", "same object as annotation number 1"),
        ({"category_id": 7}, coco_format.SAME_ANNOTATION_ID, "1 ids, such as 1"),
    ],
)
def test_a_bad_annotation_is_told_and_costs_nothing_else(
    coco: Coco, bad: dict[str, Any], kind: str, tells: str
) -> None:
    found = coco(annotations=[annotation(), annotation(**({"id": 2} | bad if "category_id" not in bad else bad))])
    assert found.problems[kind] == 1 and tells in found.messages, found.messages
    assert len(found.labels["a.png"].cls) == (2 if kind == coco_format.SAME_ANNOTATION_ID else 1)


def test_entries_that_are_none_are_told(coco: Coco) -> None:
    images = [*content()["images"], 5, {"id": 1}, {"id": 2, "file_name": ""}, {"id": 3, "file_name": "\ud800.png"}]
    found = coco(images=images, annotations=[annotation(), "x", None])
    assert found.problems == {coco_format.NO_NAME: 4, coco_format.NO_ENTRY: 2}


def test_images_that_share_an_id_get_no_labels(coco: Coco) -> None:
    images = content()["images"]
    images[1]["id"] = 10
    found = coco(images=images)
    assert found.problems[coco_format.SAME_ID] == 2  # none of the three annotations can be told to belong to one
    assert not len(found.labels["a.png"].cls) and found.labels["a.png"].problems and found.labels["b.png"].problems


def test_an_image_listed_twice_is_one_with_the_annotations_of_both(coco: Coco) -> None:
    again = {"id": 50, "file_name": "a.png", "height": 30, "width": 40}
    more = [annotation(), annotation(id=2, image_id=50, bbox=[1, 1, 2, 2])]
    found = coco(images=[*content()["images"], again], annotations=more)
    assert len(found.labels) == 3 and len(found.labels["a.png"].cls) == 2
    assert found.problems == {table.LISTED_TWICE: 1}


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        ('{"images": [', r"line 1, column 13: no valid JSON"),
        ("[]", "there is no list 'images'"),
        ('{"images": [], "annotations": {}, "categories": []}', "no list 'annotations'"),
        ("[" * 100_000, "nested too deeply"),
        ('{"images": ' + "9" * 5000 + "}", "no valid JSON: Exceeds the limit"),
        (json.dumps(content(categories=[{"id": 1}])), "has no id or no name"),
        (json.dumps(content(categories=[])), "'categories' is empty"),
        (
            json.dumps(content(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}])),
            "id 1 stands for 'a' and for 'b'",
        ),
        (json.dumps(content(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}])), "names has 'a' twice"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(coco: Coco, text: str, tells: str) -> None:
    with pytest.raises(ValueError, match=tells) as caught:
        coco(text=text)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(folder: Path) -> None:
    (folder / "x.json").write_bytes(b'{"images": "\xff\xfe"}')
    with pytest.raises(ValueError, match=r"x\.json is not UTF-8 text"):
        check_dataset(folder / "x.json", splits=("train",))


# -- where images are --------------------------------------------------------------------------------------------------
def named(name: str) -> dict[str, Any]:
    return {"images": [*content()["images"][:2], {"id": 12, "file_name": name}]}


def test_missing_images_and_those_not_named_are_counted(coco: Coco, folder: Path) -> None:
    make_image(folder / "train/other.png", 16, 16)
    found = coco(**named("gone.png"))
    assert found.missing == ["gone.png"] and found.unused == {"image that the annotations do not name": 2}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("deep\\d.png", "path as Windows writes it"), ("C:\\data\\deep\\d.png", "absolute path"), ("deep/d.png", "")],
)
def test_images_in_folders_and_paths_of_windows(coco: Coco, folder: Path, name: str, kind: str) -> None:
    make_image(folder / "train/deep/d.png", 16, 16)
    found = coco(**named(name), annotations=[annotation(image_id=12, bbox=[0, 0, 8, 8])])
    assert len(found.labels["d.png"].cls) == 1 and found.missing == []
    assert (kind in found.problems) == bool(kind)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS finds both forms of a name")
@pytest.mark.parametrize("place", ["train", "images", "."])
def test_names_in_another_unicode_form_are_found_and_told(coco: Coco, folder: Path, place: str) -> None:
    (folder / "train").rename(folder / "gone")
    make_image(folder / place / "de\u0301ja\u0300/e\u0301.png", 16, 16)
    found = coco(
        images=[{"id": 10, "file_name": "d\u00e9j\u00e0/\u00e9.png"}], annotations=[annotation(bbox=[0, 0, 8, 8])]
    )
    assert len(found.labels["e\u0301.png"].cls) == 1 and found.problems == {"name in another Unicode form": 1}
    assert found.unused == {}


def test_absolute_paths_are_used_and_told_and_found_again_on_another_machine(coco: Coco, folder: Path) -> None:
    make_image(folder.parent / "away/e.png", 16, 16)
    found = coco(**named(str(folder.parent / "away/e.png")))
    assert "e.png" in found.labels and found.problems == {"absolute path": 1}
    moved = coco(**named("/home/pi/set/train/c.png"))
    assert "c.png" in moved.labels and "not there, and looked for in" in moved.messages


def test_a_path_out_of_the_data_set_is_not_used(coco: Coco, folder: Path) -> None:
    make_image(folder.parent / "secret.png", 16, 16)
    make_image(folder / "more/f.png", 16, 16)
    found = coco(**named("../../secret.png"))
    assert found.missing == ["secret.png"] and found.problems == {"path out of the data set": 1}
    assert "f.png" in coco(**named("../more/f.png")).labels, "elsewhere in the data set"


def test_no_image_at_all_says_where_was_looked(coco: Coco) -> None:
    with pytest.raises(ValueError, match=r"None of the 1 images .* such as gone\.png\. Looked in .*images: FOLDER"):
        coco(images=[{"id": 10, "file_name": "gone.png"}])


@pytest.mark.parametrize("place", [".", "images", "images/train", "train", "annotations"])
def test_the_usual_places_of_images_are_found(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))
    make_image(tmp_path / "set" / place / "a.png", 30, 40)
    (tmp_path / "set/annotations").mkdir(exist_ok=True)
    (tmp_path / "set/annotations/instances_train.json").write_text(
        json.dumps(content(images=content()["images"][:1], annotations=[annotation()]))
    )
    data = check_dataset(tmp_path / "set", splits=("train",))
    assert build_index(data["train"], names=data["names"]).objects().tolist() == [1]


# -- sizes that disagree -----------------------------------------------------------------------------------------------
def sized(**size: int) -> dict[str, Any]:
    return {"images": [{"id": 10, "file_name": "a.png", **size}], "annotations": [annotation()]}


def test_sizes_that_the_file_does_not_have(coco: Coco) -> None:
    right = coco().labels["a.png"].boxes[0]
    for size in ({}, {"width": 0, "height": 0}, {"width": 30, "height": 40}):  # none, none, exchanged
        np.testing.assert_array_equal(coco(**sized(**size)).labels["a.png"].boxes[0], right)
    scaled = coco(**sized(width=80, height=60))
    np.testing.assert_array_equal(scaled.labels["a.png"].boxes[0], right / 2)
    assert "boxes are scaled as the image is" in scaled.messages
    other = coco(**sized(width=40, height=40))
    assert not len(other.labels["a.png"].cls) and "of another shape" in other.messages
    assert len(scaled.problems) == len(other.problems) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_stored_picture_turn_with_it(coco: Coco, folder: Path, orientation: int) -> None:
    """A white box is drawn into the stored picture; where Pillow shows it, the label must be."""
    from PIL import ImageOps

    stored = Image.new("L", (40, 30))
    stored.paste(255, (4, 6, 24, 18))
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(folder / "train/a.png", exif=exif)
    with Image.open(folder / "train/a.png") as file:
        shown = np.array(ImageOps.exif_transpose(file))
    rows, columns = np.flatnonzero(shown.max(1)), np.flatnonzero(shown.max(0))
    height, width = shown.shape
    told = {} if orientation > 4 else {"width": width, "height": height}
    box = [4, 6, 20, 12]
    if orientation in (2, 3, 4):  # the sizes cannot tell; boxes are of the picture as it is shown
        box = [int(columns[0]), int(rows[0]), len(columns), len(rows)]
    found = coco(
        images=[{"id": 10, "file_name": "a.png", **(told or {"width": 40, "height": 30})}],
        annotations=[annotation(bbox=box)],
    )
    centre = ((columns[0] + columns[-1] + 1) / 2 / width, (rows[0] + rows[-1] + 1) / 2 / height)
    np.testing.assert_allclose(
        found.labels["a.png"].boxes[0], [*centre, len(columns) / width, len(rows) / height], atol=1e-6
    )
    assert ("are turned" in found.messages) == (orientation > 4)


# -- outlines ----------------------------------------------------------------------------------------------------------
def test_an_annotation_without_a_box_gets_the_one_around_its_outline(coco: Coco) -> None:
    outline = {"segmentation": [[4, 6, 24, 6, 24, 18], [5, 7, 9, 7, 9, 9]]}
    no_box = {key: value for key, value in annotation(**outline).items() if key != "bbox"}
    found = coco(annotations=[no_box])
    np.testing.assert_array_equal(found.labels["a.png"].boxes, coco().labels["a.png"].boxes[:1])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.randoms(use_true_random=False))
def test_runs_have_the_box_that_pycocotools_gives_them(height: int, width: int, random: Any) -> None:
    mask = pytest.importorskip("pycocotools.mask")
    grid = np.array([[random.random() < 0.3 for _ in range(width)] for _ in range(height)], np.uint8)
    packed = mask.encode(np.asfortranarray(grid))
    expected = tuple(mask.toBbox(packed).tolist()) if grid.any() else None
    assert bounds({"size": [height, width], "counts": packed["counts"].decode()}) == expected
    flat, runs = grid.T.reshape(-1), [0]
    for i, value in enumerate(flat):
        if value != (flat[i - 1] if i else 0):
            runs.append(0)
        runs[-1] += 1
    assert bounds({"size": [height, width], "counts": runs}) == expected


@pytest.mark.parametrize(
    "bad",
    [
        None, 5, [], [[1, 2]], [[1, 2, 3, 4, 5]], [["a"] * 6], [[1, 2, 3, 4, 5, 10**400]], {},
        {"counts": [1, -2], "size": [4, 4]}, {"counts": [90, 2], "size": [4, 4]}, {"counts": "0", "size": 5},
        {"counts": "\x00", "size": [4, 4]}, {"counts": "~" * 50, "size": [4, 4]}, {"counts": [4], "size": [2, 2]},
        {"counts": [1, 10**30], "size": [10**20, 10**20]},
    ],
)  # fmt: skip
def test_what_is_no_outline_has_no_box(bad: object) -> None:
    assert bounds(bad) is None


# -- once per content --------------------------------------------------------------------------------------------------
def test_a_file_is_read_once_until_it_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "train.json"
    file.write_text(json.dumps(content()))
    reads = []
    form = coco_format.COCO._replace(read=lambda path: reads.append(path) or coco_format.read_coco(path))
    monkeypatch.setattr(coco_format, "COCO", form)

    def opened(**more: Any) -> Any:
        data = check_dataset({"path": folder, "train": "train.json", **more}, splits=("train",))
        return build_index(data["train"], names=data["names"])

    before = opened()
    assert opened().fingerprint == before.fingerprint and len(reads) == 1
    assert opened(names=["owl", "cat", "dog"]).labels(0)[0].tolist() == [2, 1] and len(reads) == 1
    file.write_text(json.dumps(content(annotations=[annotation()])))
    os.utime(file, ns=(1, 1))
    assert opened().objects().tolist() == [1, 0, 0] and len(reads) == 2
    next((folder.parent / "cache/annotations").iterdir()).write_bytes(b"rubbish")
    assert opened().objects().tolist() == [1, 0, 0] and len(reads) == 3


def test_the_index_has_the_trouble_of_the_file(folder: Path) -> None:
    (folder / "train.json").write_text(json.dumps(content(annotations=[annotation(), annotation(id=2, bbox=[1])])))
    data = check_dataset(folder / "train.json", splits=("train",))
    for _ in range(2):  # scanned, and from the cache
        report = build_index(data["train"], names=data["names"]).report
        assert report.counts == {coco_format.NO_BOX: 1} and report.problems[0].file == str(folder / "train.json")


# -- descriptions ------------------------------------------------------------------------------------------------------
def test_a_file_a_folder_and_a_yaml_are_data(folder: Path) -> None:
    (folder / "annotations").mkdir()
    file = folder / "annotations/instances_train2017.json"
    file.write_text(json.dumps(content()))
    (folder / "annotations/instances_val2017.json").write_text(json.dumps(content()))
    (folder / "annotations/captions_val2017.json").write_text("{}")
    assert len(read(check_dataset(file, splits=("train",))["train"]).labels) == 3
    assert len(read(check_dataset(file, splits=("val",))["val"]).labels) == 3
    with pytest.raises(ValueError, match=r"key 'val' .* is missing.*val: 0\.1"):
        check_dataset(file)
    whole = check_dataset(folder)
    assert str(whole["val"]).endswith("instances_val2017.json") and whole["names"] == {0: "dog", 1: "cat", 2: "owl"}
    (folder / "my.yaml").write_text(
        "train: {annotations: annotations/instances_train2017.json, images: train}\nval: 0.3\n"
    )
    held = check_dataset(folder / "my.yaml")
    assert held["val_fraction"] == 0.3 and len(read(held["train"]).labels) == 3
    (folder / "annotations/instances_train2014.json").write_text(json.dumps(content()))
    (folder / "my.yaml").unlink()
    with pytest.raises(ValueError, match="holds several files for train"):
        check_dataset(folder)


@pytest.mark.parametrize("place", ["sub/train.json", "sub/train.ndjson", "sub/annotations/instances_train.json"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_file_is_named_from_where_one_is(
    folder: Path, place: str, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder.parent / place
    file.parent.mkdir(parents=True)
    (folder / "train").rename(folder.parent / "sub/images")
    row = {"image": "a.png", "split": "train", "objects": [{"class": "cat", "bbox": [4, 6, 20, 12]}]}
    file.write_text(json.dumps(row if file.suffix == ".ndjson" else content()))
    monkeypatch.chdir(file.parent if inside else folder.parent)
    data = check_dataset(file.name if inside else place, splits=("train",))
    assert "a.png" in read(data["train"]).labels and data["path"] == folder.parent / "sub"


def test_annotations_that_are_not_there_are_missed_before_the_names_in_them(folder: Path) -> None:
    (folder / "train.json").write_text(json.dumps(content()))
    for entry in ("trian.json", ["train.json", "trian.json"], {"annotations": "trian.json", "images": "train"}):
        with pytest.raises(ValueError, match=r"train: trian\.json does not exist.* Did you mean .*train\.json\?"):
            check_dataset({"path": folder, "train": entry}, splits=("train",))
    with pytest.raises(ValueError, match=r"trian\.json: no such file\. .* Did you mean train\.json\?"):
        check_dataset(folder / "trian.json")


def test_annotations_that_an_export_names_with_dots_are_found(folder: Path) -> None:
    (folder / "train/_annotations.coco.json").write_text(json.dumps(content()))
    for entry in ("../train/_annotations.coco.json", {"annotations": "../train/_annotations.coco.json"}):
        data = check_dataset({"path": folder, "train": entry}, splits=("train",))
        assert len(read(data["train"]).labels) == 3


def test_a_folder_as_roboflow_exports_it(folder: Path) -> None:
    make_image(folder / "valid/a.png", 30, 40)
    (folder / "train/_annotations.coco.json").write_text(json.dumps(content()))
    (folder / "valid/_annotations.coco.json").write_text(json.dumps(content(images=content()["images"][:1])))
    data = check_dataset(folder)
    assert [*read(data["val"]).labels] == ["a.png"] and len(read(data["train"]).labels) == 3


def test_several_files_are_one_split(folder: Path) -> None:
    (folder / "one.json").write_text(json.dumps(content(images=content()["images"][:1], annotations=[annotation()])))
    more = content(images=content()["images"][1:], annotations=content()["annotations"][1:2])
    (folder / "two.json").write_text(json.dumps(more))
    data = check_dataset(
        {"path": folder, "train": [{"annotations": f"{name}.json", "images": "train"} for name in ("one", "two")]},
        splits=("train",),
    )
    index = build_index(data["train"], names=data["names"])
    assert index.objects().tolist() == [1, 1, 0] and index.report.counts == {}
    with pytest.raises(ValueError, match="mixes annotation files"):
        check_dataset({"path": folder, "train": ["one.json", "train"], "names": ["x"]}, splits=("train",))
    with pytest.raises(ValueError, match=r"gone\.json does not exist"):
        check_dataset({"path": folder, "train": ["one.json", "gone.json"], "names": ["x"]}, splits=("train",))


@pytest.mark.parametrize(
    ("entry", "tells"),
    [
        ({"annotation": "x.json"}, "unknown key 'annotation'.*Did you mean 'annotations'"),
        ({"annotations": 5}, "annotations=5 must be a path"),
        ({"annotations": "train.json", "split": "train"}, "'split' has no effect"),
        ({"annotations": "gone.json"}, r"gone\.json does not exist"),
        ({"annotations": "train.json", "from_1": 3}, "from_1 is true or false"),
    ],
)
def test_an_entry_that_means_nothing(folder: Path, entry: dict[str, Any], tells: str) -> None:
    (folder / "train.json").write_text(json.dumps(content()))
    with pytest.raises(ValueError, match=tells):
        check_dataset({"path": folder, "train": entry, "names": ["x"]}, splits=("train",))


# -- LVIS --------------------------------------------------------------------------------------------------------------
def lacking(found: Read) -> dict[str, tuple[int, ...]]:
    return {name: labels.lacking for name, labels in found.labels.items()}


def test_classes_that_lvis_did_not_annotate_are_lacking(coco: Coco) -> None:
    images = content()["images"]
    images[0] |= {"neg_category_ids": [], "not_exhaustive_category_ids": [7]}  # shows dog 3 and cat 7
    images[1] |= {"neg_category_ids": [3], "not_exhaustive_category_ids": []}  # shows owl 90
    found = coco(images=images)
    assert found.problems == {} and lacking(found) == {"a.png": (1, 2), "b.png": (1,), "c.png": ()}
    assert found.labels["a.png"].cls.tolist() == [0, 1], "objects of a class that is annotated in part stay objects"


def test_lvis_may_tell_only_a_part_and_of_unknown_classes(coco: Coco) -> None:
    images = content()["images"]
    images[0] |= {"not_exhaustive_category_ids": [90, 91]}
    images[1] |= {"neg_category_ids": [3, 7, 1000, None], "not_exhaustive_category_ids": "?"}
    images[2] |= {"neg_category_ids": 5}
    assert lacking(coco(images=images)) == {"a.png": (2,), "b.png": (), "c.png": ()}


def test_lvis_names_images_by_their_address_at_coco(coco: Coco, folder: Path) -> None:
    images = content()["images"]
    for image in images:
        name = image.pop("file_name")
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{name}"
        make_image(folder / "train2017" / name, image["height"], image["width"])
    found = coco(images=images)
    assert found.problems == {} and len(found.labels) == 3
