"""What a description says of areas to ignore, and what becomes of them up to a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eyas.augment.settings import AugmentSettings
from eyas.config import resolve
from eyas.data.dataset import EvalDataset, TrainDataset
from eyas.data.dataset_yaml import check_dataset
from eyas.data.formats import YoloText
from eyas.data.formats.base import ANY_CLASS, Ignored, Labels, no_labels
from eyas.data.ignore import IgnoreRules, areas, distinct, rules_of, with_ignored
from eyas.data.index import ImageIndex, build_index
from eyas.data.sampler import EvalKey, SampleKey
from eyas.data.store import ImageStore
from eyas.evaluate.assemble import described_data

NAMES = {0: "cat", 1: "dog", 2: "unsure"}
SIZE = 64
SQUARES = ((32, 8), (0, 32), (40, 32), (20, 0))  # top and left


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four black images with a white square, elsewhere in each, labelled "unsure"; in two of them a dog as well."""
    for i in range(4):
        for name in ("images/a", "images/b", "labels/a", "labels/b"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        place = ("a", "b")[i % 2]
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        top, left = SQUARES[i]
        image[top : top + 24, left : left + 32] = 255
        cv2.imwrite(str(tmp_path / "images" / place / f"{i}.png"), image)
        rows = [f"2 {(left + 16) / SIZE} {(top + 12) / SIZE} {32 / SIZE} {24 / SIZE}"] + ["1 0.8 0.2 0.2 0.2"] * (i < 2)
        (tmp_path / "labels" / place / f"{i}.txt").write_text("\n".join(rows) + "\n")
    return tmp_path


def described(folder: Path, **keys: Any) -> dict[str, Any]:
    return check_dataset({"path": str(folder), "train": "images", "val": "images", "names": NAMES, **keys})


def indexed(folder: Path, data: dict[str, Any], **more: Any) -> ImageIndex:
    return build_index(data["train"], names=data["names"], ignore=data["ignore"], cache_dir=folder / "cache", **more)


def test_objects_of_a_class_to_ignore_are_areas_and_no_objects(folder: Path) -> None:
    index = indexed(folder, described(folder, ignore=["unsure"]))
    assert index.instances().tolist() == [0, 2, 0]
    assert index.ignored_classes.tolist() == [[True, True, True]]
    kind, boxes = index.areas(0)
    assert kind.tolist() == [0]
    np.testing.assert_allclose(boxes, [[24 / SIZE, 44 / SIZE, 0.5, 24 / SIZE]])
    assert any("4 areas in 4 images are ignored" in note for note in index.report.notes)
    again = indexed(folder, described(folder, ignore=["unsure"]))  # from the cache
    np.testing.assert_array_equal(again.ignored, index.ignored)


def test_images_without_some_classes_are_areas_of_these(folder: Path) -> None:
    data = described(folder, annotated={"images/a": ["cat", "dog"], "images": ["cat", "dog", "unsure"]})
    index = indexed(folder, data)
    told = {Path(index.path(i)).name: index.areas(i)[1].tolist() for i in range(len(index))}
    assert told["0.png"] == told["2.png"] == [[0.5, 0.5, 1.0, 1.0]]
    assert told["1.png"] == told["3.png"] == []
    assert index.ignored_classes.tolist() == [[False, False, True]]
    one = indexed(folder, {**data, "ignore": data["ignore"].for_one_class(3), "names": {0: "item"}}, single_cls=True)
    assert one.ignored_classes.tolist() == [[True]]
    assert len(one.ignored) == 2


def test_ignored_classes_are_found_where_all_are_one(folder: Path) -> None:
    data = described(folder, ignore=["unsure"])
    one = indexed(folder, {**data, "names": {0: "item"}}, single_cls=True)
    assert one.instances().tolist() == [2]
    assert len(one.ignored) == 4


def test_classes_have_names_where_all_are_one() -> None:
    """A component and an override find the description as one class already."""
    options = resolve(call={"data": "digits-tiny", "single_cls": True, "ignore": ["7"]})
    data = described_data(options, ("train",))
    assert data["names"] == {0: "item"}
    assert data["ignore"].classes == (7,)
    assert with_ignored(data, ["7"])["ignore"] == data["ignore"]
    assert rules_of(data | {"ignore": ["7"]}) == data["ignore"]
    with pytest.raises(ValueError, match="no class 'item'"):
        with_ignored(data, ["item"])


def test_data_without_areas_are_the_same_data_as_ever(folder: Path) -> None:
    plain, areas_too = indexed(folder, described(folder)), indexed(folder, described(folder, ignore=["unsure"]))
    assert plain.fingerprint != areas_too.fingerprint
    assert plain.fingerprint == indexed(folder, described(folder, ignore=False)).fingerprint


def test_rules_of_a_source_and_of_a_description_go_together() -> None:
    labels = Labels(
        np.array([0, 2], np.float32),
        np.full((2, 4), 0.1, np.float32),
        [],
        Ignored(np.array([1], np.float32), np.full((1, 4), 0.2, np.float32)),
        lacking=(0,),
    )
    rules = IgnoreRules(classes=(2,), annotated=(("/data", (0, 1)), ("/data/deep", (0, 1, 2))))
    found = rules.applied(labels, "/data/x.jpg", 3)
    assert found.cls.tolist() == [0]
    assert found.ignored.cls.tolist() == [1, ANY_CLASS]
    assert found.lacking == (0, 2)
    assert rules.applied(labels, "/data/deep/x.jpg", 3).lacking == (0,)
    assert rules.applied(labels, "/data2/x.jpg", 3).lacking == (0,)  # no folder above it
    boxes, bits = areas(found, 3)
    sets, kind = distinct(bits, 3)
    assert sets[kind].tolist() == [[False, True, False], [True, True, True], [True, False, True]]
    assert boxes[-1].tolist() == [0.5, 0.5, 1, 1]
    off = rules._replace(use=False).applied(labels, "/data/x.jpg", 3)
    assert (len(off.ignored.cls), off.lacking, off.cls.tolist()) == (0, (), [0, 2])


class Crowds(YoloText):
    """A format of which every third class is a crowd."""

    def labels_of(self, *asked: Any) -> list[Labels]:
        rules = IgnoreRules(classes=(2,))
        return [rules.applied(labels, "", 3) for labels in super().labels_of(*asked)]


def test_an_image_of_areas_alone_is_kept_though_a_row_of_it_is_bad(folder: Path) -> None:
    for i in (2, 3):
        label = folder / "labels" / ("a", "b")[i % 2] / f"{i}.txt"
        label.write_text(label.read_text() + "what is this\n")
    index = build_index(Crowds([folder / "images"], num_classes=3), names=NAMES, cache_dir=folder / "cache")
    assert (len(index), len(index.ignored)) == (4, 4)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"ignore": ["unsur"]}, "no class 'unsur'.*unsure"),
        ({"ignore": "unsure"}, "must be true, false or a list"),
        ({"annotated": {"images/c": ["cat"]}}, "images/c is no folder"),
        ({"annotated": {"images/a": ["cow"]}}, "no class 'cow'"),
        ({"annotated": ["cat"]}, "must map folders"),
    ],
)
def test_what_there_is_not_is_refused(folder: Path, keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        described(folder, **keys)


def test_what_is_asked_for_comes_over_what_the_description_says(folder: Path) -> None:
    data = described(folder, ignore=["unsure"])
    assert with_ignored(data, None)["ignore"] == data["ignore"]
    assert with_ignored(data, False)["ignore"].use is False
    assert with_ignored(data, ["dog"])["ignore"].classes == (1,)
    assert with_ignored(data, [1])["ignore"].classes == (1,)
    with pytest.raises(ValueError, match=r"ignore: there is no class 'doge'.*dog"):
        with_ignored(data, ["doge"])
    assert no_labels().lacking == ()


# -- up to a batch -----------------------------------------------------------------------------------------------------
def square_of(batch: dict[str, Any], i: int) -> np.ndarray:
    """White pixels of an image of a batch, (H, W) bool."""
    return (batch["img"][i].numpy().min(0) > 128).astype(bool)


def covered(batch: dict[str, Any], i: int) -> np.ndarray:
    """Pixels of an image that its areas cover, (H, W) bool."""
    height, width = batch["img"].shape[-2:]
    mask = np.zeros((height, width), bool)
    for box in batch["ignored"][batch["ignored_idx"] == i].numpy().astype(float):
        corners = box[[0, 1, 0, 1]] + box[[2, 3, 2, 3]] * [-0.5, -0.5, 0.5, 0.5]
        x1, y1, x2, y2 = corners * [width, height, width, height]
        mask[round(y1) : round(y2), round(x1) : round(x2)] = True
    return mask


@pytest.mark.parametrize(
    "changes",
    [
        {"mosaic": 1.0},
        {"mosaic": 1.0, "mixup": 1.0},
        {"mosaic": 0.0, "scale": 0.5, "translate": 0.2, "fliplr": 1.0, "flipud": 1.0},
        {"cutmix": 1.0, "mosaic": 0.0},
        {"degrees": 30.0, "shear": 5.0, "mosaic": 0.0},
    ],
    ids=["mosaic", "mixup", "moved and mirrored", "cutmix", "turned"],
)
def test_areas_follow_their_pixels_through_augmentation(folder: Path, changes: dict[str, float]) -> None:
    index = indexed(folder, described(folder, ignore=["unsure"]))
    none = dict.fromkeys(("mosaic", "mixup", "cutmix", "hsv_h", "hsv_s", "hsv_v", "scale", "translate", "fliplr"), 0.0)
    settings = AugmentSettings(**{**none, **changes})
    dataset = TrainDataset(index, ImageStore(index, imgsz=SIZE), imgsz=SIZE, settings=settings)
    keys = [SampleKey(0, position, position % 4, (0, 1, 2, 3), False) for position in range(24)]
    batch = dataset.make_batch(keys)
    seen = 0
    for i in range(len(keys)):
        white, area = square_of(batch, i), covered(batch, i)
        grown = cv2.dilate(area.astype(np.uint8), np.ones((5, 5))).astype(bool)
        assert not (white & ~grown).any(), f"sample {i}: white pixels outside of its areas"
        seen += white.sum()
        if "degrees" not in changes and "mixup" not in changes:  # nor is more covered than the square
            if "cutmix" in changes:  # what the rectangle hides of the first picture's area stays
                top, left = SQUARES[int(Path(batch["im_file"][i]).stem)]
                white[top : top + 24, left : left + 32] = True
            assert not (cv2.erode(area.astype(np.uint8), np.ones((5, 5))).astype(bool) & ~white).any()
    assert seen > 1000


def test_areas_are_letterboxed_for_evaluation(folder: Path) -> None:
    index = indexed(folder, described(folder, ignore=["unsure"]))
    dataset = EvalDataset(index, ImageStore(index, imgsz=SIZE), imgsz=SIZE)
    batch = dataset.make_batch([EvalKey(0, (SIZE, SIZE + 32))])
    white, area = square_of(batch, 0), covered(batch, 0)
    assert (white == area).mean() > 0.99
    assert batch["ignored_kind"].tolist() == [0]


def test_data_without_areas_say_nothing_of_them(folder: Path) -> None:
    index = indexed(folder, described(folder))
    batch = EvalDataset(index, ImageStore(index, imgsz=SIZE), imgsz=SIZE).make_batch([EvalKey(0, (SIZE, SIZE))])
    assert not [key for key in batch if key.startswith("ignored")]


def test_a_transform_that_moves_boxes_moves_areas_too(folder: Path) -> None:
    def mirrored(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> Any:
        boxes = boxes.copy()
        boxes[:, [0, 2]] = SIZE - boxes[:, [2, 0]]
        return np.ascontiguousarray(image[:, ::-1]), boxes, labels

    index = indexed(folder, described(folder, ignore=["unsure"]))
    settings = AugmentSettings(mosaic=0.0, scale=0.0, translate=0.0, fliplr=0.0, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0)
    dataset = TrainDataset(index, ImageStore(index, imgsz=SIZE), imgsz=SIZE, settings=settings, transforms=[mirrored])
    batch = dataset.make_batch([SampleKey(0, 0, i, (0, 1, 2, 3), False) for i in range(4)])
    assert (square_of(batch, 0) == covered(batch, 0)).mean() > 0.99
    assert sorted(batch["cls"].flatten().tolist()) == [1.0, 1.0]
