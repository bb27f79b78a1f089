from __future__ import annotations

import json
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eyas.boxes import unletterbox
from eyas.evaluate import DetectionValidator
from eyas.evaluate.boxlist import BoxList, Frame
from eyas.metrics import METRIC_KEYS
from eyas.models import DetectionModel

NAMES = {0: "cat", 1: "dog", 2: "owl"}
PICTURES = [
    "BoxPR_curve.png",
    "BoxF1_curve.png",
    "BoxP_curve.png",
    "BoxR_curve.png",
    "confusion_matrix.png",
    "confusion_matrix_normalized.png",
    "val_batch0_labels.jpg",
    "val_batch0_pred.jpg",
]


def make_batch(images=4, size=64, seed=0, first=0, labels=2, folder="/data"):
    """A letterboxed batch: originals 200 high and 400 wide, shrunk to `size` px with bars above and below."""
    rng = np.random.default_rng(seed)
    gain, bar = size / 400, size / 4
    center = rng.uniform(0.4, 0.6, (images * labels, 2))
    extent = np.stack([rng.uniform(0.2, 0.5, images * labels), rng.uniform(0.1, 0.3, images * labels)], axis=1)
    return {
        "img": torch.from_numpy(rng.integers(0, 256, (images, 3, size, size), dtype=np.uint8)),
        "cls": torch.from_numpy(rng.integers(0, 3, (images * labels, 1))).float(),
        "bboxes": torch.from_numpy(np.concatenate([center, extent], axis=1)).float(),
        "batch_idx": torch.arange(images).repeat_interleave(labels).float(),
        "im_file": [f"{folder}/{first + i}.jpg" for i in range(images)],
        "ori_shape": [(200, 400)] * images,
        "resized_shape": [(size, size)] * images,
        "ratio_pad": [((gain, gain), (0.0, bar))] * images,
        "index": torch.arange(first, first + images),
    }


class Oracle(nn.Module):
    """Answers with the labels of the batches it is given in turn, each with a stray box of low score."""

    def __init__(self, batches, *, shift=0.0):
        super().__init__()
        self.batches, self.shift, self.turn = batches, shift, 0
        self.weight = nn.Parameter(torch.zeros(1))
        self.nc, self.names, self.end2end, self.stride = 3, NAMES, True, torch.tensor([32.0])
        self.head = SimpleNamespace(max_det=300, agnostic_nms=False, cv2=object())

    def set_head_attr(self, **settings):
        self.end2end = settings.pop("end2end")
        vars(self.head).update(settings)

    def in_pixels(self, found, height, width):
        return found

    def forward(self, image):
        batch = self.batches[self.turn % len(self.batches)]
        self.turn += 1
        size = image.shape[-1]
        rows = torch.zeros(len(image), 10, 6)
        for i in range(len(image)):
            mine = batch["batch_idx"] == i
            box = batch["bboxes"][mine] * size
            corners = torch.cat([box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], dim=1) + self.shift
            rows[i, : len(box)] = torch.cat([corners, torch.full((len(box), 1), 0.9), batch["cls"][mine]], dim=1)
            rows[i, -1] = torch.tensor([0, 0, 3, 3, 0.02, 0])
        return rows, {}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DetectionModel("yolo26n.yaml", nc=3, names=NAMES, verbose=False)


def trainer_of(model, ema=None):
    return SimpleNamespace(model=model, ema=ema, device=torch.device("cpu"), amp_dtype=None)


def test_perfect_detector_through_the_letterbox(tmp_path):
    batches = [make_batch(seed=i, first=4 * i) for i in range(3)]
    files = {"save_dir": tmp_path, "save_json": True, "save_txt": True}
    validator = DetectionValidator(batches, names=NAMES, verbose=False, **files)
    values = validator(model=Oracle(batches))
    assert list(values) == [*METRIC_KEYS, "fitness"]
    assert values["metrics/recall(B)"] == 1 and values["metrics/precision(B)"] == pytest.approx(1, abs=0.005)
    assert values["metrics/mAP50-95(B)"] == pytest.approx(0.995, abs=1e-6)
    assert set(validator.metrics.speed) == {"preprocess", "inference", "loss", "postprocess"}
    assert validator.metrics.box.image_metrics["11.jpg"]["tp"] == 2

    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert len(rows) == 12 * 3 and rows[0]["image_id"] == 0 and rows[0]["file_name"] == "0.jpg"
    x, y, w, h = batches[0]["bboxes"][0].double().numpy()
    expected = [(x - w / 2) * 400, (y - h / 2) * 400 - 100, w * 400, h * 400]  # 64 px net -> 400 px wide, 100 px bars
    np.testing.assert_allclose(rows[0]["bbox"], expected, atol=2e-3)
    assert rows[0]["category_id"] == int(batches[0]["cls"][0]) and rows[0]["score"] == 0.9

    text = (tmp_path / "labels" / "0.txt").read_text().splitlines()
    assert len(text) == 3 and len(text[0].split()) == 5
    np.testing.assert_allclose([float(v) for v in text[0].split()[1:]], [x, (y - 0.25) * 2, w, 2 * h], atol=1e-4)


def test_shifted_boxes_score_less():
    batches = [make_batch()]
    perfect = DetectionValidator(batches, names=NAMES, verbose=False)(model=Oracle(batches))
    shifted = DetectionValidator(batches, names=NAMES, verbose=False)(model=Oracle(batches, shift=2.0))
    assert 0 < shifted["fitness"] < perfect["fitness"]


def test_coco_numbers_when_asked():
    pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    batches = [make_batch(), make_batch(seed=1, first=4), make_batch(images=2, seed=2, first=8)]
    values = DetectionValidator(batches, names=NAMES, coco=True, verbose=False)(model=Oracle(batches))
    assert values["coco/AP"] == pytest.approx(1) and values["coco/AR100"] == pytest.approx(1)


def test_equal_file_names_in_different_folders(tmp_path):
    batches = [make_batch(folder="/a"), make_batch(folder="/b", seed=1)]
    files = {"save_dir": tmp_path, "save_txt": True, "save_conf": True}
    validator = DetectionValidator(batches, names=NAMES, verbose=False, **files)
    validator(model=Oracle(batches))
    assert sorted(validator.metrics.box.image_metrics)[:2] == ["a/0.jpg", "a/1.jpg"]
    assert len(list((tmp_path / "labels").rglob("*.txt"))) == 8
    assert len((tmp_path / "labels" / "b" / "0.txt").read_text().splitlines()[0].split()) == 6


def test_classes_and_single_cls_apply_to_labels_and_predictions():
    batches = [make_batch(images=8)]
    only_dogs = DetectionValidator(batches, names=NAMES, classes=[1], verbose=False)
    assert only_dogs(model=Oracle(batches))["metrics/recall(B)"] == 1
    assert only_dogs.metrics.box.ap_class_index.tolist() == [1]
    together = DetectionValidator(batches, names={0: "item"}, single_cls=True, verbose=False)
    assert together(model=Oracle(batches))["metrics/mAP50(B)"] == pytest.approx(0.995, abs=1e-6)


class Undecided(Oracle):
    """Gives each object once for each class, scores falling: as rows of one branch or as cells of the other."""

    def forward(self, image):
        found, raw = super().forward(image)
        objects = (self.batches[0]["batch_idx"] == 0).sum()
        rows = found[:, :objects, None].repeat(1, 1, 3, 1)  # (B, objects, 3 classes, 6)
        rows[..., 4] -= torch.tensor([0.0, 0.1, 0.2])
        rows[..., 5] = torch.arange(3.0)
        if self.end2end:
            best = rows[:, :, :1] if self.head.agnostic_nms else rows
            return best.flatten(1, 2), raw
        centre, side = (rows[:, :, 0, :2] + rows[:, :, 0, 2:4]) / 2, rows[:, :, 0, 2:4] - rows[:, :, 0, :2]
        return torch.cat([centre, side, rows[..., 4]], -1).transpose(1, 2), raw


@pytest.mark.parametrize("nms", [False, True])
@pytest.mark.parametrize(("chosen", "rows"), [({}, 3), ({"agnostic_nms": True}, 1), ({"single_cls": True}, 1)])
def test_without_classes_an_object_found_as_several_counts_once(nms, chosen, rows):
    batches = [make_batch(labels=1)]
    names = {0: "item"} if "single_cls" in chosen else NAMES
    validator = DetectionValidator(batches, names=names, nms=nms, verbose=False, **chosen)
    values = validator(model=Undecided(batches))
    assert len(validator.metrics.stats["conf"]) == 4 * rows
    if "single_cls" in chosen:
        assert values["metrics/precision(B)"] == pytest.approx(1)
        assert not validator.metrics.stats["pred_cls"].any() and not validator.metrics.stats["target_cls"].any()


def test_background_images_and_empty_split():
    nothing = make_batch(labels=0)
    validator = DetectionValidator([nothing], names=NAMES, verbose=False)
    values = validator(model=Oracle([nothing]))
    assert values["fitness"] == 0 and validator.metrics.nt_per_class.sum() == 0
    assert DetectionValidator([], names=NAMES, verbose=False)(model=Oracle([]))["fitness"] == 0


def test_a_second_call_starts_from_zero():
    batches = [make_batch()]
    validator = DetectionValidator(batches, names=NAMES, verbose=False)
    first, second = validator(model=Oracle(batches)), validator(model=Oracle(batches))
    assert first == second and len(validator.metrics.image_files) == 4


def test_real_model_alone_and_in_training_give_the_same(model):
    batches = [make_batch(seed=1), make_batch(images=3, seed=2, first=4)]
    validator = DetectionValidator(batches, names=NAMES, verbose=False)
    alone = validator(model=model)
    trained = validator(trainer_of(model))
    assert {key: trained[key] for key in alone} == alone
    assert list(trained) == [*METRIC_KEYS, "val/box_loss", "val/cls_loss", "val/l1_loss", "fitness"]
    averaged = validator(trainer_of(None, ema=SimpleNamespace(ema=model)))
    assert averaged == trained
    assert all(isinstance(value, float) for value in trained.values())


class Exported:
    """No module: a function of images and plain facts, made once for one branch, as an exported model is."""

    def __init__(self, model):
        self.nc, self.names, self.stride, self.stretch = model.nc, model.names, model.stride, model.stretch
        self.end2end, self.device = model.end2end, torch.device("cpu")
        self.answer, self.blocks = deepcopy(model).eval(), 0

    def __call__(self, images):
        return self.answer(images)[0].clone(), None

    def in_pixels(self, found, height, width):
        return found

    @contextmanager
    def ready(self, *, nms, max_det, agnostic):
        if nms is not None and nms == self.end2end:
            raise ValueError("exported without NMS")
        self.blocks += 1
        yield


def test_what_is_no_module_is_measured_alike(model):
    batches = [make_batch(seed=1), make_batch(images=3, seed=2, first=4)]
    exported = Exported(model)
    validator = DetectionValidator(batches, names=NAMES, verbose=False)
    of_module = validator(model=model), validator.metrics.stats
    assert validator(model=exported) == of_module[0] and exported.blocks == 1
    assert len(of_module[1]["conf"]) and all(
        np.array_equal(validator.metrics.stats[key], value, equal_nan=True) for key, value in of_module[1].items()
    )
    with pytest.raises(ValueError, match="exported without NMS"):
        DetectionValidator(batches, names=NAMES, nms=True, verbose=False)(model=exported)
    with pytest.raises(ValueError, match="made for cpu and does not run on meta"):
        DetectionValidator(batches, names=NAMES, device="meta", verbose=False)(model=exported)
    exported.nc = 2
    with pytest.raises(ValueError, match="2 classes and the data has 3"):
        validator(model=exported)


def test_effects_are_what_it_works_with_and_files_only_those_it_writes(tmp_path):
    plain = DetectionValidator([], names=NAMES)
    assert plain.effects() == {
        "conf": 0.001,
        "iou": 0.7,
        "max_det": 300,
        "nms": None,
        "agnostic_nms": False,
        "single_cls": False,
    }
    settings = {"conf": 0.2, "iou": 0.5, "max_det": 7, "nms": True, "single_cls": True, "classes": [2, 0]}
    files = {"save_json": True, "save_txt": True, "save_conf": True}
    found = DetectionValidator([], names=NAMES, save_dir=tmp_path, **settings, **files).effects()
    assert found == {**settings, **files, "agnostic_nms": True, "classes": [0, 2]}
    plain.save_dir = tmp_path
    report = {"plots": False, "coco": False, "verbose": False}
    plain.report(**report, save_json=True, save_txt=False, save_conf=True)
    assert plain.effects()["save_json"] is True and not {"save_txt", "save_conf"} & plain.effects().keys()


def test_losses_are_those_of_the_model(model):
    batch = make_batch()
    values = DetectionValidator([batch], names=NAMES, verbose=False)(trainer_of(model))
    model.eval()
    ready = {**batch, "img": batch["img"].float() / 255}
    _, items = model.loss(ready, model(ready["img"]))
    for name, value in items.items():
        assert values[f"val/{name}"] == pytest.approx(float(value), rel=1e-4)


def test_losses_are_means_over_images_however_they_were_batched(model):
    """The last batch is smaller: its images weigh as much as all others."""
    parts = [make_batch(images=4, seed=1), make_batch(images=1, seed=2, first=4)]
    values = DetectionValidator(parts, names=NAMES, verbose=False)(trainer_of(model))
    model.eval()
    items = [model.loss({**b, "img": b["img"].float() / 255}, model(b["img"].float() / 255))[1] for b in parts]
    for name in items[0]:
        assert values[f"val/{name}"] == pytest.approx((4 * float(items[0][name]) + float(items[1][name])) / 5, rel=1e-4)


def test_the_averaged_weights_are_measured(model):
    batches = [make_batch()]
    other = DetectionModel("yolo26n.yaml", nc=3, names=NAMES, verbose=False)
    validator = DetectionValidator(batches, names=NAMES, verbose=False)
    expected = validator(trainer_of(model))
    assert validator(trainer_of(other, ema=SimpleNamespace(ema=model))) == expected != validator(trainer_of(other))


def test_low_scores_and_crowds_count_by_default():
    """Average precision looks at the whole curve: scores down to 0.001, and 300 boxes of an image."""
    batches = [make_batch(images=1)]

    class Crowd(Oracle):
        def forward(self, image):
            assert self.head.max_det == 300
            rows = torch.rand(1, 400, 6) * 50
            rows[..., 4], rows[..., 5] = torch.linspace(0.9, 0.0, 400), 0
            return rows, {}

    validator = DetectionValidator(batches, names=NAMES, verbose=False)
    validator(model=Crowd(batches))
    assert len(validator.metrics.stats["conf"]) == 300
    few = DetectionValidator(batches, names=NAMES, verbose=False, max_det=1000)
    rows = torch.tensor([[[0.0, 0, 9, 9, 0.0011, 0], [0, 0, 9, 9, 0.0009, 0]]])
    assert len(few.postprocess(rows, end2end=True)[0]) == 1


def test_model_is_left_as_it_was(model):
    model.train()
    model.model[0].eval()  # as a frozen part would be
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    DetectionValidator([make_batch()], names=NAMES, nms=True, max_det=17, verbose=False)(trainer_of(model))
    assert model.training and not model.model[0].training and model.model[1].training
    assert model.end2end and model.head.max_det == 300
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.train()
    loss, _ = model.loss({**make_batch(), "img": make_batch()["img"].float() / 255})
    loss.sum().backward()  # nothing of the validation stands in the way of training


def test_both_branches_are_reachable():
    model = DetectionModel("yolo26n.yaml", nc=3, names=NAMES, verbose=False)
    with torch.no_grad():
        model.head.one2one_cv3[2][-1].bias += 2  # fresh branches are equal
    batches = [make_batch()]
    free = DetectionValidator(batches, names=NAMES, nms=False, verbose=False)
    dense = DetectionValidator(batches, names=NAMES, nms=True, verbose=False)
    assert free(model=model) == DetectionValidator(batches, names=NAMES, verbose=False)(model=model)
    dense(model=model)
    assert not np.array_equal(free.metrics.stats["conf"], dense.metrics.stats["conf"])


def test_pictures_are_written(tmp_path, model):
    batches = [make_batch()]
    pixels = batches[0]["img"].clone()
    DetectionValidator(batches, names=NAMES, save_dir=tmp_path, plots=True, verbose=False)(model=model)
    for name in PICTURES:
        assert cv2.imread(str(tmp_path / name)).shape[0] > 300, name
    assert torch.equal(batches[0]["img"], pixels)
    assert not (tmp_path / "val_batch1_pred.jpg").exists()


def test_table_has_a_row_per_class(capsys):
    batches = [make_batch()]
    DetectionValidator(batches, names=NAMES)(model=Oracle(batches))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["Class", "Images", "Instances"]
    assert lines[1].split()[0] == "all" and {line.split()[0] for line in lines[2:5]} <= set(NAMES.values())


def test_mistakes_are_told(model):
    validator = DetectionValidator([make_batch()], names=["a", "b"], verbose=False)
    with pytest.raises(ValueError, match="3 classes and the data has 2"):
        validator(model=model)
    with pytest.raises(ValueError, match="either a trainer or model="):
        validator()
    with pytest.raises(ValueError, match="give save_dir"):
        DetectionValidator([], names=NAMES, save_json=True)


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    DetectionValidator([make_batch()], names=NAMES, plots=True, verbose=False)(model=model)
    assert list(Path(tmp_path).iterdir()) == []


def test_pictures_show_what_a_user_would_see(tmp_path):
    """Boxes that are measured though nobody would be shown them are not drawn."""
    batch = make_batch(images=1)
    likely = torch.tensor([[5.0, 5, 40, 40, 0.9, 1]])
    unlikely = torch.tensor([[10.0, 20, 60, 60, 0.24, 0]])
    pictures = []
    for name, rows in (("a", likely), ("b", torch.cat((likely, unlikely))), ("c", unlikely)):
        validator = DetectionValidator([batch], names=NAMES, save_dir=tmp_path / name, plots=True, verbose=False)
        validator.start(Oracle([batch]), torch.device("cpu"))
        validator.update(batch, [rows])
        validator.plot_detections(batch, [rows], 0)
        assert len(validator.metrics._collected[0]["conf"]) == len(rows)
        pictures.append((tmp_path / name / "val_batch0_pred.jpg").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_names_of_numbers_and_words_share_a_file(tmp_path):
    batches = [make_batch(images=2)]
    batches[0]["im_file"] = ["/data/7.jpg", "/data/cat.jpg"]
    files = {"save_dir": tmp_path, "save_json": True}
    DetectionValidator(batches, names=NAMES, verbose=False, **files)(model=Oracle(batches))
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert {(row["image_id"], row["file_name"]) for row in rows} == {("7", "7.jpg"), ("cat", "cat.jpg")}


@pytest.mark.parametrize(
    ("files", "ids", "labels"),
    [
        (["/v/a/7.jpg", "/v/b/7.jpg"], ["a/7.jpg", "b/7.jpg"], ["a/7.txt", "b/7.txt"]),
        (["/v/7.jpg", "/v/07.jpg"], ["7", "07"], ["7.txt", "07.txt"]),  # one number, two names
        (["/v/cat.jpg", "/v/cat.png"], ["cat.jpg", "cat.png"], ["cat.jpg.txt", "cat.png.txt"]),
    ],
)
def test_images_of_one_name_are_told_apart_in_files(tmp_path, files, ids, labels):
    batches = [make_batch(images=2)]
    batches[0]["im_file"] = files
    where = {"save_dir": tmp_path, "save_json": True, "save_txt": True}
    DetectionValidator(batches, names=NAMES, verbose=False, **where)(model=Oracle(batches))
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert [row["image_id"] for row in rows] == [i for i in ids for _ in range(3)]
    folder = tmp_path / "labels"
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*.txt")) == sorted(labels)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_boxes_go_back_to_the_original_one_by_one(data):
    """Gains and paddings of both axes differ: against `unletterbox`, one image at a time."""
    number, count = st.floats(0.2, 3.0), data.draw(st.integers(1, 3))
    pads = [((data.draw(number), data.draw(number)), (data.draw(number), data.draw(number))) for _ in range(count)]
    shapes = [(data.draw(st.integers(10, 90)), data.draw(st.integers(10, 90))) for _ in range(count)]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    boxes, image = rng.uniform(-20, 120, (6, 4)).astype(np.float32), rng.integers(0, count, 6)
    listed = BoxList(boxes, np.zeros(6, np.int64), image, np.ones(6, np.float32))
    found = Frame({"ratio_pad": pads, "ori_shape": shapes}).to_original(listed)
    for i in range(6):
        expected = unletterbox(torch.from_numpy(boxes[i]).double(), pads[image[i]], shapes[image[i]])
        np.testing.assert_allclose(found.boxes[i], expected, rtol=1e-4, atol=1e-3)
