"""The numbers behind the checks, against something independent; and the checks that need a set of their own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.stats import chi2

import sick_data as sick
from eyas.boxes import pairwise_iou
from eyas.data.report import KINDS
from eyas.doctor import examine
from eyas.doctor.case import Case, Split
from eyas.doctor.checks import disagreement
from eyas.doctor.checks.odd import outlying
from eyas.doctor.checks.overlaps import overlaps
from eyas.doctor.checks.shift import _median_of_each, compare_shares
from eyas.doctor.detector import SecondOpinion
from eyas.doctor.finding import Seen

IMGSZ = 128


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A split of images with 0 to 12 boxes anywhere."""
    rng = np.random.default_rng(3)
    made = sick.Set(tmp_path_factory.mktemp("crowded"))
    for i, count in enumerate((3, 0, 12, 1, 7)):
        size, centre = rng.uniform(5, 60, (count, 2)), rng.uniform(30, 66, (count, 2))
        rows = [(k % 2, *centre[k].tolist(), *size[k].tolist()) for k in range(count)]
        made.add("train", f"{i}.jpg", sick.picture(i), rows)
    return examine({"train": str(made.image("train", "x").parent), "names": ["a", "b"]}, checks=["sizes"]).case.splits[
        "train"
    ]


def test_overlaps_are_those_of_comparing_all_boxes_of_an_image(crowded):
    found = overlaps(crowded)
    boxes = torch.from_numpy(crowded.xyxy)
    expected = {}
    for i in range(len(crowded)):
        rows = np.flatnonzero(crowded.image_of == i)
        iou = pairwise_iou(boxes[rows], boxes[rows])
        pairs = [(j, k) for j in range(len(rows)) for k in range(j + 1, len(rows)) if iou[j, k] > 0]
        expected |= {(int(rows[j]), int(rows[k])): float(iou[j, k]) for j, k in pairs}
    got = dict(zip(zip(found.a.tolist(), found.b.tolist(), strict=True), found.iou.tolist(), strict=True))
    assert got == pytest.approx(expected) and len(expected) > 20
    assert ((found.inside >= found.iou) & (found.inside <= 1 + 1e-9) & (found.ratio <= 1)).all()


def test_the_median_box_of_each_image(crowded):
    values = np.random.default_rng(0).normal(size=len(crowded.cls))
    expected = [np.sort(values[crowded.image_of == i])[count // 2] for i, count in enumerate((3, 0, 12, 1, 7)) if count]
    np.testing.assert_array_equal(_median_of_each(crowded, values), expected)


def test_class_shares_are_compared_as_by_hand():
    counts, images = np.array([[300, 100, 0], [100, 100, 0]]), np.array([40, 20])
    scaled = np.array([[30, 10], [10, 10.0]])
    expected = np.outer(scaled.sum(1), scaled.sum(0)) / scaled.sum()
    statistic = ((scaled - expected) ** 2 / expected).sum()
    found = compare_shares(counts, images)
    assert found.v == pytest.approx(np.sqrt(statistic / 60)) and found.p == pytest.approx(chi2.sf(statistic, 1))
    assert compare_shares(np.array([[5, 0], [7, 0]]), images) == (0, 1)


@settings(deadline=None, max_examples=30)
@given(arrays(np.float64, st.integers(4, 40), elements=st.floats(-100, 100)), st.floats(-5, 5), st.floats(0.1, 10))
def test_what_is_outlying_does_not_change_with_the_unit(values, offset, scale):
    beyond = outlying(values, values)
    low, high = np.quantile(values, [0.25, 0.75])
    assert (beyond[(values >= low) & (values <= high)] == 0).all()
    if high - low > 0.01:
        np.testing.assert_allclose(outlying(values * scale + offset, values * scale + offset), beyond, atol=1e-6)
        assert (np.sign(beyond) == np.where(values > high, 1, np.where(values < low, -1, 0))).all()


def test_equal_values_have_no_outlier():
    assert outlying(np.array([1.0, 1, 1, 1, 50]), np.ones(9)).tolist() == [0] * 5


# -- shift -------------------------------------------------------------------------------------------------------------
def shifted(folder, images=30, **other):
    """Findings of 30 + 30 images, or fewer, of which those of val are darker, or have larger, wider, or more cups."""
    made = sick.Set(folder)
    for i in range(images):
        made.add("train", f"{i}.jpg", sick.picture(i), sick.objects(i))
        rows = [
            (other.get("cls", cls), x, y, w * other.get("size", 1) * other.get("aspect", 1), h * other.get("size", 1))
            for cls, x, y, w, h in sick.objects(100 + i)
        ]
        image = (sick.picture(100 + i) * other.get("light", 1)).astype(np.uint8)
        made.add("val", f"{i}.jpg", image, rows)
    return examine(made.yaml, imgsz=IMGSZ, checks=["shift"]).findings


@pytest.mark.parametrize(
    ("other", "kinds"),
    [
        ({}, set()),
        ({"light": 0.4}, {"other brightness"}),
        ({"size": 0.6}, {"other box sizes"}),
        ({"aspect": 2.0}, {"other box aspects", "other box sizes"}),
        ({"cls": 0}, {"other class shares"}),
    ],
)
def test_a_split_unlike_train_is_told(tmp_path, other, kinds):
    found = shifted(tmp_path / "set", **other)
    assert {each.kind for each in found} == kinds
    assert all(each.severity == "warning" and "val" in each.sentence for each in found)


def test_a_few_images_are_no_proof(tmp_path):
    assert not shifted(tmp_path / "few", images=3, light=0.4)


# -- a model's opinion -------------------------------------------------------------------------------------------------
class Opinion:
    """Says what a test wants said."""

    def __init__(self, *seen):
        self.class_of, self.seen = {0: 0, 1: 1}, seen

    def look_at(self, split):
        return enumerate(self.seen)


def doubts(tmp_path, *seen):
    """What the check says of a train split of one image, with a cup at 20..44 and a jug at 82..102 x 26..70."""
    made = sick.Set(tmp_path / "set")
    made.add("train", "a.jpg", sick.picture(0), [(0, 32, 48, 24, 24), (1, 92, 48, 20, 44)])
    split = examine(
        {"train": str(made.image("train", "a.jpg").parent), "names": ["cup", "jug"]}, checks=["sizes"]
    ).case.splits["train"]
    case = Case({0: "cup", 1: "jug"}, [split], {}, IMGSZ)
    found = disagreement.look(case, Opinion(tuple(seen)))
    return {each.kind: [(place.what, place.labels) for place in each.places] for each in found}


CUP, JUG = (20, 36, 44, 60), (82, 26, 102, 70)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([Seen(CUP, 0, 0.9), Seen(JUG, 1, 0.06)], {}),
        (
            [Seen(CUP, 0, 0.9), Seen(JUG, 1, 0.9), Seen((50, 0, 70, 20), 1, 0.61)],
            {"found, not labelled": [("jug 0.61, no label", ())]},
        ),
        ([Seen(CUP, 0, 0.9), Seen(JUG, 1, 0.9), Seen((50, 0, 70, 20), 1, 0.59)], {}),
        (
            [Seen(CUP, 1, 0.8), Seen(JUG, 1, 0.9)],
            {"found as another class": [("labelled cup, the model says jug 0.80", (0,))]},
        ),
        ([Seen(CUP, 0, 0.9)], {"labelled, never found": [("jug, not found", (1,))]}),
    ],
)
def test_labels_that_a_model_disagrees_with(tmp_path, seen, expected):
    assert doubts(tmp_path, *seen) == expected


def test_a_model_looks_at_every_image(digits_tiny, tiny_model):
    case = examine("digits-tiny", imgsz=64, checks=["sizes"]).case
    split: Split = case.splits["val"]
    names = {0: "other", 1: SecondOpinion(str(tiny_model), {0: "0"}).yolo.names[3]}
    opinion = SecondOpinion(str(tiny_model), names, imgsz=64, device="cpu")
    assert opinion.class_of == {3: 1} and opinion.imgsz == 64
    looked = list(opinion.look_at(split))
    assert [i for i, _ in looked] == list(range(16)) and all(s.cls == 1 for _, seen in looked for s in seen)


def test_a_model_of_other_classes_has_no_opinion(tiny_model):
    with pytest.raises(ValueError, match="no class is the same"):
        SecondOpinion(str(tiny_model), {0: "zeppelin"})


# -- files -------------------------------------------------------------------------------------------------------------
def as_coco(folder, names=("0.png", "1.png"), size=(sick.WIDTH, sick.HEIGHT), ids=(1, 2)):
    """A COCO file of a box on each of some images, and the file's path."""
    images = [{"id": i, "file_name": name, "width": size[0], "height": size[1]} for i, name in enumerate(names)]
    boxes = [{"id": ids[i], "image_id": i, "category_id": 0, "bbox": [8 + 4 * i, 8, 32, 16]} for i in range(len(names))]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 0, "name": "cup"}]}
    (folder / "train.json").write_text(json.dumps(content))
    return str(folder / "train.json")


def as_text(folder, row="0 0.5 0.5 0.25 0.25"):
    for name in ("0", "1"):
        (folder / f"{name}.txt").write_text(row)
    return str(folder)


def with_outlines(folder):
    return as_text(folder, "0 0.1 0.1 0.4 0.1 0.4 0.5 0.1 0.5")


def with_two_images_of_one_stem(folder):
    (folder / "1.png").rename(folder / "0.bmp")
    (folder / "0.txt").write_text("0 0.5 0.5 0.25 0.25")
    return str(folder)


def with_pictures_in_one_file(folder):
    frames = [Image.fromarray(sick.picture(i)) for i in range(2)]
    frames[0].save(folder / "0.gif", save_all=True, append_images=frames[1:])
    (folder / "0.png").unlink()
    return as_text(folder)


def without_an_end(folder):
    data = cv2.imencode(".jpg", sick.picture(0))[1].tobytes()
    (folder / "0.jpg").write_bytes(data.removesuffix(b"\xff\xd9"))
    (folder / "0.png").unlink()
    return as_text(folder)


def with_an_image_twice(folder):
    return as_coco(folder, ("0.png", "0.png"))


def with_windows_paths(folder):
    (folder / "deep").mkdir()
    (folder / "0.png").rename(folder / "deep/0.png")
    return as_coco(folder, ("deep\\0.png", "1.png"))


def with_names_in_other_forms(folder):
    (folder / "0.png").rename(folder / "e\u0301.png")
    return as_coco(folder, ("\u00e9.png", "1.png"))


def with_a_list_of_cvat(folder):
    as_text(folder)
    (folder.parent / f"{folder.name}.txt").write_text(f"data/{folder.name}/0.png\n{folder.name}/1.png\n")
    return str(folder.parent / f"{folder.name}.txt")


KEPT = {
    "outlines taken as boxes": with_outlines,
    "label file of several images": with_two_images_of_one_stem,
    "several pictures in one file": with_pictures_in_one_file,
    "JPEG without end marker": without_an_end,
    "image listed twice": with_an_image_twice,
    "annotation id used twice": lambda folder: as_coco(folder, ids=(1, 1)),
    "path as Windows writes it": with_windows_paths,
    "absolute path": lambda folder: as_coco(folder, [str(folder / "0.png"), "1.png"]),
    "name in another Unicode form": with_names_in_other_forms,
    "path with data/ before it": with_a_list_of_cvat,
    "annotated at another image size": lambda folder: as_coco(folder, size=(2 * sick.WIDTH, 2 * sick.HEIGHT)),
}


def test_every_kind_that_is_kept_is_tried_here():
    assert {*KEPT} == {kind for kind, weight in KINDS.items() if weight.kept}


@pytest.mark.parametrize("kind", KEPT)
def test_what_is_kept_is_there_and_no_error(tmp_path, kind):
    if sys.platform == "darwin" and "Unicode" in kind:
        pytest.skip("macOS finds both forms of a name")
    for i in range(2):
        assert cv2.imwrite(str(tmp_path / f"{i}.png"), sick.picture(i))
    found = examine({"train": KEPT[kind](tmp_path), "names": ["cup"]}, imgsz=IMGSZ, checks=["files"])
    assert {each.kind for each in found.findings} == {kind}
    assert found.findings[0].severity != "error" and "(kept)" in found.findings[0].sentence
    assert "not trained on" not in found.findings[0].action
    report = found.case.splits["train"].index.report
    assert report.boxes == 2 and report.images == (1 if kind == "image listed twice" else 2) and not report.left_out


def test_what_is_lost_is_called_so(tmp_path):
    for i in range(2):
        assert cv2.imwrite(str(tmp_path / f"{i}.png"), sick.picture(i))
    data = as_coco(tmp_path, ids=(1, 1))
    other = data.replace("train", "val")
    Path(other).write_text(Path(data).read_text().replace('"width": 128', '"width": 96', 1))
    found = examine({"train": data, "val": other, "names": ["cup"]}, imgsz=IMGSZ, checks=["files"])
    (shape,) = [each for each in found.findings if each.kind.startswith("image size differs")]
    assert shape.severity == "error" and "(left out)" in shape.sentence and "not trained on" in shape.action
    assert found.case.splits["val"].index.report.left_out == {"no usable label row": 1}
