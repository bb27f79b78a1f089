"""Data sets, loaders and augmentation under the incumbent's names."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from eyas import dist
from eyas.compat.answers import augment, build, labels
from eyas.compat.answers.dataset import RTDETRDataset, YOLODataset
from eyas.compat.answers.instance import Instances
from eyas.config import TrainOptions
from eyas.data.dataset import EvalDataset, TrainDataset
from eyas.data.loader import EpochLoader


@pytest.fixture(scope="module")
def data(digits_tiny: Path) -> dict[str, Any]:
    return labels.check_det_dataset(digits_tiny)


# -- descriptions ------------------------------------------------------------------------------------------------------
def test_a_description_tells_paths_as_text(data: dict[str, Any], digits_tiny: Path) -> None:
    assert isinstance(data["train"], str) and Path(data["train"]).is_dir() and data["test"] is None
    assert data["nc"] == len(data["names"]) == 10 and Path(data["path"]).is_dir()
    both = {"train": [data["train"], data["val"]], "val": data["val"], "names": data["names"]}
    assert labels.check_det_dataset(both)["train"] == [data["train"], data["val"]]
    with pytest.raises(ValueError, match="autodownload is False"):
        labels.check_det_dataset("https://example.invalid/x.zip", autodownload=False)


def test_nothing_is_fetched_where_that_is_not_wanted(tmp_path: Path, data: dict[str, Any]) -> None:
    file = tmp_path / "d.yaml"
    file.write_text(
        f"path: {data['path']}\ntrain: {data['train']}\nval: none\nnames: [a]\ndownload: http://x.invalid/a.zip\n"
    )
    with pytest.raises(ValueError, match="val"):
        labels.check_det_dataset(file, autodownload=False)
    file.write_text(file.read_text().replace("val: none", f"val: {data['val']}"))
    assert labels.check_det_dataset(file, autodownload=False)["val"] == data["val"]


def test_label_files_and_what_is_in_them(data: dict[str, Any], tmp_path: Path) -> None:
    assert labels.img2label_paths(["/a/images/b/c.jpg"]) == ["/a/labels/b/c.txt"]
    assert {"jpg", "png", "tif"} <= labels.IMG_FORMATS
    image = next(Path(data["val"]).iterdir())
    text = tmp_path / "x.txt"
    text.write_text("3 0.5 0.5 0.2 0.2\n11 0.5 0.5 0.1 0.1\n")
    file, rows, shape, _, _, *counts, message = labels.verify_image_label(
        (image, text, "val: ", False, 10, 0, 0, False)
    )
    assert file == image and rows.tolist() == [pytest.approx([3, 0.5, 0.5, 0.2, 0.2])] and len(shape) == 2
    assert counts == [0, 1, 0, 1] and "line 2" in message
    found = labels.verify_image_label((text, text, "", False, 10, 0, 0))
    assert found[0] is None and found[8] == 1 and str(text) in found[9]
    absent = labels.verify_image_label((image, tmp_path / "none.txt", "", False, 10, 0, 0))
    assert absent[1].shape == (0, 5) and absent[5:9] == [1, 0, 0, 0]


# -- boxes of an image -------------------------------------------------------------------------------------------------
def test_boxes_change_form_unit_and_place() -> None:
    boxes = Instances(np.array([[0.5, 0.5, 0.2, 0.4], [0.1, 0.2, 0.2, 0.2]]))
    boxes.denormalize(100, 50)
    boxes.convert_bbox("xyxy")
    np.testing.assert_allclose(boxes.bboxes, [[40, 15, 60, 35], [0, 5, 20, 15]], atol=1e-4)
    assert boxes.bbox_areas.tolist() == pytest.approx([400, 200]) and len(boxes[1]) == len(boxes[[True, False]]) == 1
    boxes.fliplr(100)
    np.testing.assert_allclose(boxes.bboxes, [[40, 15, 60, 35], [80, 5, 100, 15]], atol=1e-4)
    boxes.flipud(50)
    np.testing.assert_allclose(boxes.bboxes[1], [80, 35, 100, 45], atol=1e-4)
    boxes.convert_bbox("ltwh")
    boxes.add_padding(5, 7)
    np.testing.assert_allclose(boxes.bboxes[1], [85, 42, 20, 10], atol=1e-4)
    boxes.scale(2, 1)
    boxes.clip(150, 100)
    assert boxes.remove_zero_area_boxes().tolist() == [True, False] and len(boxes) == 1
    boxes.normalize(200, 100)
    assert boxes.normalized and boxes.format == "ltwh"
    with pytest.raises(ValueError, match="denormalize"):
        boxes.add_padding(1, 1)
    with pytest.raises(ValueError, match="different forms"):
        Instances.concatenate([boxes, Instances(np.zeros((1, 4)))])
    with pytest.raises(ValueError, match="keypoints are not supported"):
        Instances(np.zeros((1, 4)), keypoints=np.ones((1, 17, 3)))
    with pytest.raises(ValueError, match="Did you mean 'xyxy'"):
        boxes.convert_bbox("xyyx")


# -- steps -------------------------------------------------------------------------------------------------------------
def described(height: int = 40, width: int = 60) -> dict[str, Any]:
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    instances = Instances(np.array([[0.5, 0.5, 0.5, 0.5]]))
    return {"img": image, "cls": np.array([[2.0]]), "instances": instances, "ratio_pad": (1.0, 1.0)}


def test_letterbox_is_as_everywhere() -> None:
    """The examples of spec core C.5."""
    fitted = augment.LetterBox((640, 640))(described(427, 640))
    assert fitted["img"].shape == (640, 640, 3) and fitted["resized_shape"] == (640, 640)
    assert (
        (fitted["img"][:106] == 114).all()
        and (fitted["img"][533:] == 114).all()
        and not (fitted["img"][106] == 114).all()
    )
    assert np.array_equal(fitted["img"][106:533], described(427, 640)["img"])
    assert fitted["ratio_pad"] == ((1, 1), (0, 106))
    fitted["instances"].convert_bbox("xyxy")
    np.testing.assert_allclose(fitted["instances"].bboxes, [[160, 106 + 427 / 4, 480, 106 + 427 * 3 / 4]])
    image = described(1080, 1920)["img"]
    assert augment.LetterBox(640, auto=True)(image=image).shape == (384, 640, 3)
    corner = augment.LetterBox((640, 640), center=False)(image=described(427, 640)["img"])
    assert np.array_equal(corner[:427], described(427, 640)["img"]) and (corner[427:] == 114).all()
    assert augment.LetterBox((50, 90), scale_fill=True)(image=image).shape == (50, 90, 3)
    small = augment.LetterBox(100, scaleup=False)(described())
    assert np.array_equal(small["img"][30:70, 20:80], described()["img"])
    with pytest.raises(ValueError, match="LetterBox needs"):
        augment.LetterBox()()


def test_colour_and_mirrors() -> None:
    plain = augment.RandomHSV(0, 0, 0)(described())
    assert np.array_equal(plain["img"], described()["img"])
    assert not np.array_equal(augment.RandomHSV(0.5, 0.9, 0.9)(described())["img"], described()["img"])
    item = described()
    item["instances"] = Instances(np.array([[0.2, 0.3, 0.1, 0.1]]))
    sideways = augment.RandomFlip(1.0)(item)
    assert np.array_equal(sideways["img"], described()["img"][:, ::-1])
    np.testing.assert_allclose(sideways["instances"].bboxes, [[0.8, 0.3, 0.1, 0.1]], atol=1e-6)
    over = augment.RandomFlip(1.0, "vertical")(sideways)
    np.testing.assert_allclose(over["instances"].bboxes, [[0.8, 0.7, 0.1, 0.1]], atol=1e-6)
    assert np.array_equal(augment.RandomFlip(0.0)(described())["img"], described()["img"])


def test_a_warp_without_change_changes_nothing_and_borders_cut() -> None:
    same = augment.RandomPerspective(translate=0, scale=0)(described())
    assert np.array_equal(same["img"], described()["img"])
    np.testing.assert_allclose(same["instances"].bboxes, [[15, 10, 45, 30]], atol=1e-4)
    cut = augment.RandomPerspective(translate=0, scale=0, border=(-10, -20))(described())
    assert cut["img"].shape == (20, 20, 3) and np.array_equal(cut["img"], described()["img"][10:30, 20:40])
    np.testing.assert_allclose(cut["instances"].bboxes, [[0, 0, 20, 20]], atol=1e-4)
    shrunken = augment.RandomPerspective(translate=0, scale=(0.25, 0.25))(described())
    np.testing.assert_allclose(shrunken["instances"].bboxes, [[26.25, 17.5, 33.75, 22.5]], atol=1e-4)
    turned = augment.RandomPerspective(degrees=180, shear=5, perspective=0.0005)(described())
    assert turned["img"].shape == (40, 60, 3) and len(turned["cls"]) == len(turned["instances"])


class Two:
    """Two images that are all of one colour."""

    def __len__(self) -> int:
        return 2

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        return described() | {"img": np.full((40, 60, 3), 50 + 100 * index, np.uint8)}


def test_a_mosaic_has_the_parts_of_four_images() -> None:
    random.seed(1)
    mosaic = augment.Mosaic(Two(), imgsz=60)
    whole = mosaic(described() | {"img": np.full((40, 60, 3), 250, np.uint8)})
    assert whole["img"].shape == (120, 120, 3) and whole["mosaic_border"] == (-30, -30)
    boxes = whole["instances"]
    assert boxes.format == "xyxy" and 2 <= len(boxes) <= 4 and len(whole["cls"]) == len(boxes)
    assert set(np.unique(whole["img"])) <= {50, 114, 150, 250}
    for x1, y1, x2, y2 in boxes.bboxes.round().astype(int).tolist():
        assert len(np.unique(whole["img"][y1 + 1 : y2 - 1, x1 + 1 : x2 - 1])) == 1  # inside one image
    assert augment.RandomPerspective(translate=0, scale=0)(whole)["img"].shape == (60, 60, 3)
    assert augment.Mosaic(Two(), p=0.0)(described())["img"].shape == (40, 60, 3)
    with pytest.raises(ValueError, match="has 4 images"):
        augment.Mosaic(Two(), n=9)


def test_mixup_blends_and_keeps_all_boxes() -> None:
    random.seed(0)
    mixed = augment.MixUp(Two(), p=1.0)(described() | {"img": np.full((40, 60, 3), 250, np.uint8)})
    assert 50 < mixed["img"].min() == mixed["img"].max() < 250 and len(mixed["instances"]) == len(mixed["cls"]) == 2


def test_steps_can_be_put_between() -> None:
    class Black(augment.BaseTransform):
        def apply_image(self, labels: dict[str, Any]) -> None:
            labels["img"][:] = 0

    steps = augment.Compose([augment.Format()])
    steps.insert(0, Black())
    steps.append(lambda labels: labels | {"seen": True})
    item = steps(described())
    assert item["seen"] and not item["img"].any() and item["img"].shape == (3, 40, 60) and len(steps.tolist()) == 3
    assert isinstance(steps[0], Black) and len(steps[:2].transforms) == 2
    steps[0] = augment.Albumentations()
    tensors = steps(described())
    assert torch.equal(tensors["img"], torch.from_numpy(described()["img"][..., ::-1].copy()).permute(2, 0, 1))
    assert torch.allclose(tensors["bboxes"], torch.full((1, 4), 0.5)) and tensors["batch_idx"].tolist() == [0]
    pixels = augment.Format(bbox_format="xyxy", normalize=False, bgr=1.0)(described())
    assert pixels["bboxes"].tolist() == [[15, 10, 45, 30]]
    assert torch.equal(pixels["img"], torch.from_numpy(described()["img"]).permute(2, 0, 1))
    with pytest.raises(ValueError, match="masks"):
        augment.Format(return_mask=True)


# -- data sets ---------------------------------------------------------------------------------------------------------
def test_single_images_are_those_of_eyas_own_evaluation(data: dict[str, Any]) -> None:
    mine = YOLODataset(data["val"], imgsz=64, augment=False, data=data, prefix="val: ")
    own = build.build_yolo_dataset(TrainOptions(imgsz=64), data["val"], 4, data, mode="val")
    assert isinstance(own, EvalDataset) and len(mine) == len(own) == 16
    batch = YOLODataset.collate_fn([mine[i] for i in range(4)])
    theirs = next(iter(build.build_dataloader(own, 4, workers=0, shuffle=False)))
    assert batch["im_file"] == list(theirs["im_file"])
    for key in ("img", "cls", "batch_idx"):
        assert torch.equal(batch[key], theirs[key]), key
    torch.testing.assert_close(batch["bboxes"], theirs["bboxes"])
    assert batch["ratio_pad"] == theirs["ratio_pad"] and batch["ori_shape"] == theirs["ori_shape"]


def test_training_images_follow_the_options_until_mosaic_ends(data: dict[str, Any]) -> None:
    random.seed(0)
    dataset = YOLODataset(data["train"], imgsz=64, hyp=TrainOptions(mosaic=1.0, mixup=0.5), data=data)
    batch = dataset.collate_fn([dataset[i] for i in range(6)])
    assert batch["img"].shape == (6, 3, 64, 64) and batch["img"].dtype == torch.uint8
    assert batch["bboxes"].min() >= 0 and batch["bboxes"].max() <= 1 and len(batch["cls"]) == len(batch["batch_idx"])
    image, original, resized = dataset.load_image(0)
    assert image.shape[:2] == resized and original == dataset.labels[0]["shape"]
    assert dataset.im_files[0] == dataset.labels[0]["im_file"]
    still = TrainOptions(degrees=0, translate=0, scale=0, fliplr=0, hsv_h=0, hsv_s=0, hsv_v=0)
    workers = copy.copy(dataset)  # as a worker process has it: a copy that shares memory
    dataset.close_mosaic(still)
    assert torch.equal(dataset[3]["img"], dataset[3]["img"])
    assert not torch.equal(workers[3]["img"], workers[3]["img"])
    assert all(len(workers[i]["cls"]) <= len(workers.labels[i]["cls"]) for i in range(10))  # nothing of other images
    plain = YOLODataset(data["train"], imgsz=64, augment=False, data=data)
    torch.testing.assert_close(dataset[3]["bboxes"], plain[3]["bboxes"], atol=1e-4, rtol=0)


def test_a_script_may_change_labels_and_steps(data: dict[str, Any]) -> None:
    class Mine(YOLODataset):
        def get_labels(self) -> list[dict[str, Any]]:
            return [label for label in super().get_labels() if len(label["cls"]) > 1][:5]

        def build_transforms(self, hyp: Any = None) -> augment.Compose:
            steps = super().build_transforms(hyp)
            steps.insert(0, lambda labels: labels | {"img": labels["img"] // 2})
            return steps

    assert len(YOLODataset([data["val"], data["val"]], imgsz=64, data=data)) == 32  # named twice, seen twice
    dataset = Mine(data["train"], imgsz=64, augment=False, data=data)
    assert len(dataset) == 5 and all(len(dataset[i]["cls"]) > 1 for i in range(5))
    assert dataset[0]["img"].max() <= 127


def test_the_arguments_of_a_data_set_are_its_attributes(data: dict[str, Any]) -> None:
    given = {
        "imgsz": 64,
        "augment": False,
        "prefix": "val: ",
        "rect": False,
        "stride": 16,
        "pad": 0.25,
        "fraction": 0.5,
    }
    given |= {"single_cls": True, "classes": [0, 1], "batch_size": 2, "cache": False, "hyp": None, "task": "detect"}
    dataset = YOLODataset(data["val"], data=data, **given)
    assert {name: getattr(dataset, name) for name in given} == given
    assert dataset.img_path == data["val"] and dataset.data is data and dataset.ni == len(dataset) > 0


def test_rectangles_and_stretched_images(data: dict[str, Any]) -> None:
    rect = YOLODataset(data["val"], imgsz=96, augment=False, rect=True, batch_size=4, pad=0.0, data=data)
    batch = rect.collate_fn([rect[i] for i in range(4)])
    assert tuple(batch["img"].shape[-2:]) == rect.batch_shapes[0]
    square = RTDETRDataset(data["val"], imgsz=64, augment=False, data=data)
    assert square[0]["img"].shape == (3, 64, 64)
    assert square[0]["bboxes"].tolist() == pytest.approx(square.labels[0]["bboxes"], abs=1e-5)
    with pytest.raises(ValueError, match=r"cutmix=0\.5 is not one of these steps"):
        YOLODataset(data["val"], imgsz=64, hyp=TrainOptions(cutmix=0.5), data=data, prefix="\033[34mval: \033[0m")
    with pytest.raises(ValueError, match="check_det_dataset"):
        YOLODataset(data["val"])


def test_eyas_own_data_sets_get_their_own_loader(data: dict[str, Any]) -> None:
    options = TrainOptions(imgsz=64, fraction=0.5, seed=3)
    dataset = build.build_yolo_dataset(options, data["train"], 8, data)
    assert isinstance(dataset, TrainDataset) and len(dataset) == 32 and dataset.seed == 3
    with build.build_dataloader(dataset, 8, workers=0, rank=-1) as loader:  # type: ignore[union-attr]
        assert isinstance(loader, EpochLoader) and len(loader) == 4
        assert next(iter(loader))["img"].shape == (8, 3, 64, 64)
    with pytest.raises(ValueError, match="rect is not supported"):
        build.build_yolo_dataset(options, data["train"], 8, data, rect=True)
    with pytest.raises(ValueError, match="drop_last is not supported"):
        build.build_dataloader(dataset, 8, workers=0, drop_last=True)


def test_any_other_data_set_gets_torchs_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    class Numbers(Dataset[int]):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> int:
            return index

    loader = build.build_dataloader(Numbers(), 4, workers=0, shuffle=False)
    assert isinstance(loader, build.InfiniteDataLoader) and len(loader) == 3
    assert [batch.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    with monkeypatch.context() as patch:
        patch.setattr(dist, "is_initialised", lambda: True)
        patch.setattr(dist, "world_size", lambda: 2)
        halves = [build.build_dataloader(Numbers(), 4, 0, shuffle=False, rank=rank) for rank in (0, 1)]
    assert [[batch.tolist() for batch in half] for half in halves] == [
        [[0, 2], [4, 6], [8]],
        [[1, 3], [5, 7], [9]],
    ]
    loader.reset()
    assert len(list(loader)) == 3 and len(build.build_dataloader(Numbers(), 4, 0, drop_last=True)) == 2
    assert sorted(torch.cat(list(build.build_dataloader(Numbers(), 40, 0))).tolist()) == list(range(10))


def test_steps_take_older_spellings_and_refuse_in_words() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    assert augment.LetterBox(16, scaleFill=True, padding_value=114)(image=image).shape == (16, 16, 3)
    for make, said in (
        (lambda: augment.LetterBox(padding_value=7), "padding_value=7: LetterBox pads with 114"),
        (lambda: augment.LetterBox(interpolation=0), "INTER_LINEAR"),
        (lambda: augment.RandomFlip(p=2.0), r"p=2\.0 must be a probability"),
        (lambda: augment.RandomFlip(flip_idx=[1, 0]), "keypoints"),
    ):
        with pytest.raises(ValueError, match=said):
            make()
