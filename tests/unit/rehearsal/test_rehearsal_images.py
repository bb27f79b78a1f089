"""The handful of images: rare classes are among them, and the fullest are the fullest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from eyas.config import TrainOptions
from eyas.data import FORMATS, LabelSource, build_index, check_dataset
from eyas.data.formats import YoloText
from eyas.rehearsal.sample import TRAIN, VAL, choose_sample, cover
from eyas.rehearsal.worst import Measured, Step, without_objects
from eyas.train.parts import some_images
from small_coco import content, make_image


def test_a_class_in_one_image_only_is_shown() -> None:
    classes = [{0}] * 50 + [{7}] + [{0, 1}] * 50 + [set()]
    assert cover(classes, 3) == [0, 50, 51]
    assert cover(classes[:2], 8) == [0, 1]


def test_images_come_from_the_users_data(digits_tiny: Path, tmp_path: Path) -> None:
    sample = choose_sample(TrainOptions(data=str(digits_tiny)), tmp_path, batch=3)
    data = check_dataset(digits_tiny)
    few, full = check_dataset(sample.few), check_dataset(sample.fullest)
    assert few["names"] == data["names"]
    every = build_index(data["train"], names=data["names"])
    chosen = build_index(few["train"], names=few["names"])
    fullest = build_index(full["train"], names=full["names"])
    assert (len(chosen), len(build_index(few["val"], names=few["names"], split="val"))) == (TRAIN, VAL)
    assert {chosen.path(i) for i in range(TRAIN)} < {every.path(i) for i in range(len(every))}
    assert (chosen.instances() > 0).all()  # all ten digits in eight images
    assert sorted(fullest.objects()) == sorted(every.objects())[-3:]
    assert (sample.images, sample.objects) == (TRAIN, every.max_objects())


def test_the_few_images_are_read_as_all_of_them(digits_tiny: Path, tmp_path: Path) -> None:
    names = ", ".join(f"{2 * i}: c{i}" for i in range(5))  # of ten digits, the even ones
    text = f"train: {digits_tiny.parent}/images/train\nnames: {{{names}}}\nval: 0.25\nvalue_range: 900\n"
    (tmp_path / "even.yaml").write_text(text)
    sample = choose_sample(TrainOptions(data=str(tmp_path / "even.yaml")), tmp_path, batch=3)
    real, few = check_dataset(tmp_path / "even.yaml"), check_dataset(sample.few)
    assert {key: few[key] for key in ("names", "ids")} == {key: real[key] for key in ("names", "ids")}
    lists = [set(few[split][0].read_text().splitlines()) for split in ("train", "val")]
    assert [len(images) for images in lists] == [TRAIN, VAL] and not lists[0] & lists[1]
    (tmp_path / "all.yaml").write_text(f"train: {digits_tiny.parent}/images/train\nnc: 10\n")
    sample = choose_sample(TrainOptions(data=str(tmp_path / "all.yaml"), val=False), tmp_path, batch=3)
    assert check_dataset(sample.few)["ids"] == tuple(range(10))


def test_images_of_another_label_format_are_copied_with_labels_in_text(
    digits_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = check_dataset(digits_tiny)

    def opener(entry: object, root: Path, names: Mapping[int, str] | None) -> LabelSource | None:
        return YoloText(data[str(entry).removesuffix(".x")], num_classes=10) if str(entry).endswith(".x") else None

    with monkeypatch.context() as patch:
        patch.setitem(FORMATS, "x", opener)
        (tmp_path / "x.yaml").write_text(f"train: train.x\nval: val.x\nnames: {list(data['names'].values())}\n")
        sample = choose_sample(TrainOptions(data=str(tmp_path / "x.yaml"), classes=[3]), tmp_path / "here", batch=3)
    (tmp_path / "there").mkdir()
    plain = choose_sample(TrainOptions(data=str(digits_tiny), classes=[3]), tmp_path / "there", batch=3)
    for copied, original in ((sample.few, plain.few), (sample.fullest, plain.fullest)):
        for split in ("train", "val"):
            ours, theirs = (
                build_index(described[split], names=data["names"], split=split)
                for described in (check_dataset(copied), check_dataset(original))
            )
            assert len(ours) == len(theirs) > 0
            found = {Path(ours.path(i)).name.split("-", 1)[1]: i for i in range(len(ours))}
            for i in range(len(theirs)):
                j = found[Path(theirs.path(i)).name]
                assert Path(ours.path(j)).is_relative_to(tmp_path / "here")
                assert all(map(np.array_equal, ours.labels(j), theirs.labels(i)))


def test_what_is_not_annotated_stays_so_in_the_few_images(digits_tiny: Path, tmp_path: Path) -> None:
    folder, file = digits_tiny.parent / "images", tmp_path / "partly.yaml"
    names = list(check_dataset(digits_tiny)["names"].values())
    text = f"train: {folder}/train\nval: {folder}/val\nnames: {names}\n"
    file.write_text(f"{text}ignore: ['9']\nannotated: {{{folder}/train: ['0', '1', '9']}}\n")
    real = check_dataset(file)
    few = check_dataset(choose_sample(TrainOptions(data=str(file)), tmp_path, batch=3).few)
    assert few["ignore"] == real["ignore"] and few["ignore"].classes == (9,) and few["ignore"].annotated
    index = build_index(few["train"], names=few["names"], ignore=few["ignore"])
    assert len(index.ignored) >= TRAIN and [False, False, *[True] * 7, False] in index.ignored_classes.tolist()
    file.write_text(f"{text}ignore: false\n")
    assert not check_dataset(choose_sample(TrainOptions(data=str(file)), tmp_path, batch=3).few)["ignore"].use


def test_areas_to_ignore_are_copied_with_the_labels(tmp_path: Path) -> None:
    images, rows = content()["images"], content()["annotations"]
    images[1] |= {"neg_category_ids": [3]}  # shows an owl: cats are not annotated
    rows[0] |= {"iscrowd": 1}
    rows.append({"id": 4, "image_id": 12, "category_id": -1, "ignore": 1, "bbox": [2, 2, 4, 4]})
    for image in images:
        make_image(tmp_path / image["file_name"], image["height"], image["width"])
    (tmp_path / "coco.json").write_text(json.dumps(content(images=images, annotations=rows)))
    (tmp_path / "set.yaml").write_text("train: coco.json\nval: coco.json\n")
    (tmp_path / "here").mkdir()
    sample = choose_sample(TrainOptions(data=str(tmp_path / "set.yaml")), tmp_path / "here", batch=2)
    real, few = check_dataset(tmp_path / "set.yaml"), check_dataset(sample.few)
    ours, theirs = (build_index(data["train"], names=real["names"]) for data in (few, real))
    assert len(ours) == len(theirs) == 3
    for i in range(3):
        mine, its = (
            {(tuple(index.ignored_classes[kind]), tuple(box)) for kind, box in zip(*index.areas(i), strict=True)}
            for index in (ours, theirs)
        )
        assert mine == its and len(its) == 1


def test_a_batch_is_cut_by_images_and_by_objects() -> None:
    batch = {
        "img": torch.zeros(4, 3, 8, 8),
        "cls": torch.arange(5.0)[:, None],
        "bboxes": torch.rand(5, 4),
        "batch_idx": torch.tensor([0.0, 0, 1, 2, 3]),
        "im_file": ["a", "b", "c", "d"],
        "max_objects": 2,
    }
    cut = some_images(batch, 0, 2)
    assert cut["img"].shape[0] == 2 and cut["im_file"] == ["a", "b"]
    assert cut["cls"].flatten().tolist() == [0, 1, 2] and cut["bboxes"].shape == (3, 4)
    empty = without_objects(cut)
    assert empty["bboxes"].shape == (0, 4) and empty["cls"].shape == (0, 1) and empty["max_objects"] == 0
    assert empty["img"].shape[0] == 2


def test_a_batch_that_is_measured_in_part_is_reckoned_up() -> None:
    gib = 2.0**30
    measured = Measured(16, 640, before=1 * gib, small=Step(2, 1.0, 2 * gib), full=Step(4, 2.0, 3 * gib))
    assert measured.reckoned() == (8.0, pytest.approx(9 * gib))
    assert "16 would need about 8 s and 9.0 GiB" in measured.text(most=5)
    only = Measured(16, 640, before=1 * gib, small=Step(2, 1.0, 2 * gib), full=Step(2, 1.0, 2 * gib))
    assert only.reckoned() == (8.0, pytest.approx(9 * gib))
