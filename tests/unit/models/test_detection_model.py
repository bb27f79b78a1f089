"""One body over every model of the class, and what a `DetectionModel` promises."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch

from eyas.losses import DenseCriterion, EndToEndCriterion
from eyas.models import MODELS, DetectionModel, detector_class, model_table
from eyas.models.detector import class_names
from eyas.models.heads import Detect

OWN = [name for name in MODELS if detector_class(model_table(name)) is DetectionModel]


def batch(rows: int = 3, size: int = 64, images: int = 2, nc: int = 3) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    return {
        "img": torch.rand(images, 3, size, size, generator=g),
        "batch_idx": torch.zeros(rows),  # the second image is empty
        "cls": torch.randint(0, nc, (rows, 1), generator=g).float(),
        "bboxes": torch.rand(rows, 4, generator=g) * 0.4 + 0.2,
    }


@pytest.fixture(scope="module")
def small() -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel("yolo26n.yaml", nc=3, names=["a", "b", "c"], verbose=False)


@pytest.mark.parametrize("name", OWN)
def test_every_model_trains_and_predicts(name: str) -> None:
    torch.manual_seed(0)
    model = DetectionModel(name, nc=3, verbose=False)
    assert len(model.yaml["backbone"]) == 11
    assert [n for n, _ in model.named_parameters() if not n.startswith("model.")] == []
    for rows in (3, 0):
        loss, items = model(batch(rows))
        assert loss.shape == (3,)
        assert loss.isfinite().all()
        assert list(items) == ["box_loss", "cls_loss", "l1_loss"]
        loss.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    with torch.no_grad():
        detections, raw = model(batch()["img"])
    assert detections.shape == (2, 84, 6)
    assert set(raw) == {"one2many", "one2one"}
    covered = [p for s in ("backbone", "neck", "head") for p in model.sections()[s]]
    for parameter, _ in model.named_parameters():
        assert sum(parameter.startswith(p) for p in covered) == 1


def test_one_to_one_branch_does_not_move_the_trunk(small: DetectionModel) -> None:
    model = copy.deepcopy(small).train()
    raw = model(batch()["img"])
    (raw["one2one"]["boxes"].sum() + raw["one2one"]["scores"].sum()).backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None}
    assert moved == {n for n, _ in model.named_parameters() if "one2one" in n}


def test_inference_branch_is_chosen_by_end2end(small: DetectionModel) -> None:
    model = copy.deepcopy(small).eval()
    x = batch()["img"]
    with torch.no_grad():
        assert model.end2end
        assert model(x)[0].shape == (2, 84, 6)
        model.end2end = False
        assert model(x)[0].shape == (2, 4 + 3, 84)
        model.set_head_attr(end2end=True, max_det=10)
        assert model(x)[0].shape == (2, 10, 6)
        model.set_head_attr(agnostic_nms=True)
        assert model(x)[0].shape == (2, 10, 6)
    with pytest.raises(ValueError, match="no setting 'max_dets'"):
        model.set_head_attr(max_dets=3)


def test_validation_loss_equals_that_of_its_own_predictions(small: DetectionModel) -> None:
    model = copy.deepcopy(small).eval()
    with torch.no_grad():
        data = batch()
        a, _ = model.loss(data)
        b, _ = model.loss(data, model(data["img"]))
    assert torch.equal(a, b)


def test_criterion_takes_the_models_gains() -> None:
    model = DetectionModel("yolo26n", nc=3, verbose=False)
    model.gains = {"box": 1.0, "cls": 2.0, "dfl": 3.0}
    model.class_weights = [1.0, 2.0, 3.0]
    criterion = model.init_criterion()
    assert isinstance(criterion, EndToEndCriterion)
    for part, topk, topk2 in ((criterion.one2many, 10, 10), (criterion.one2one, 7, 1)):
        assert isinstance(part, DenseCriterion)
        assert part.gains == {"box": 1.0, "cls": 2.0, "l1": 3.0}
        assert (part.assigner.topk, part.assigner.topk2, part.assigner.min_side) == (topk, topk2, 16)
        assert part.class_weights.flatten().tolist() == [1, 2, 3]


def test_state_survives_copying_saving_and_the_loss(small: DetectionModel) -> None:
    keys = list(small.state_dict())
    model = copy.deepcopy(small)
    model.loss(batch())
    assert list(model.state_dict()) == keys, "the criterion leaked into the state"
    assert list(copy.deepcopy(model).state_dict()) == keys
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = DetectionModel(model.yaml, nc=3, verbose=False)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    model.eval(), other.eval()
    x = batch()["img"]
    assert torch.equal(model(x)[0], other(x)[0])


def test_any_input_size_of_whole_cells(small: DetectionModel) -> None:
    model = copy.deepcopy(small).eval()
    for h, w in ((32, 96), (128, 64), (32, 96)):
        with torch.no_grad():
            assert model(torch.rand(1, 3, h, w))[1]["one2one"]["boxes"].shape[-1] == h * w // 1024 * 21


def test_memory_format_changes_nothing(small: DetectionModel) -> None:
    model = copy.deepcopy(small).eval()
    x = batch()["img"]
    plain = model(x)[1]["one2many"]["scores"]
    model.to(memory_format=torch.channels_last)
    packed = model(x.contiguous(memory_format=torch.channels_last))[1]["one2many"]["scores"]
    torch.testing.assert_close(packed, plain, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("nc", "end2end", "parameters"), [(3, False, 2_375_421), (80, True, 2_408_932)])
def test_fuse(nc: int, end2end: bool, parameters: int) -> None:
    torch.manual_seed(0)
    model = DetectionModel("yolo26n", nc=nc, verbose=False).eval()
    model.end2end = end2end
    x = batch()["img"]
    with torch.no_grad():
        expected = model(x)[0]
        assert not model.is_fused()
        model.fuse()
        assert model.is_fused()
        torch.testing.assert_close(model(x)[0], expected, atol=1e-3, rtol=1e-4)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_sections(small: DetectionModel) -> None:
    parts = small.sections()
    assert list(parts)[:2] == ["backbone", "backbone.p1"]
    assert parts["backbone.p5"] == tuple(f"model.{i}." for i in range(7, 11))
    assert sum((parts[f"backbone.p{k}"] for k in range(1, 6)), ()) == parts["backbone"]
    heads = [n for n, _ in small.named_parameters() if n.startswith(parts["head"])]
    assert all(n.startswith(parts["head.box"]) != n.startswith(parts["head.cls"]) for n in heads)


def test_info_counts(small: DetectionModel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="eyas"):
        facts = small.info(imgsz=640)
    assert facts["parameters"] == 2_504_970
    assert 4 < facts["gflops"] < 7
    assert "2,504,970 parameters" in caplog.text


def test_names_must_fit() -> None:
    with pytest.raises(ValueError, match="number them from 0 to 2"):
        DetectionModel("yolo26n", nc=3, names={1: "a", 2: "b", 3: "c"}, verbose=False)


def test_same_seed_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(DetectionModel("yolo26n", nc=3, verbose=False).state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_a_fresh_head_expects_five_objects_and_boxes_of_four_cells() -> None:
    head = Detect((16, 32, 64), nc=200)
    head.stride = torch.tensor([8.0, 16.0, 32.0])
    head.init_biases(imgsz=320)
    for branch in head.class_branches:
        for layer, cells in zip(branch, (40, 20, 10), strict=True):
            assert layer[2].bias.exp().sum().item() == pytest.approx(5 / cells**2, rel=1e-5)
            assert layer[2].weight.shape[:2] == (200, 100)  # hidden width: channels, at least classes up to 100
    assert all((layer[2].bias == 2).all() for branch in head.box_branches for layer in branch)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = DetectionModel("yolo26n.yaml", nc=3, verbose=False)
    model.model[0].requires_grad_(False)
    frozen = sum(p.numel() for p in model.model[0].parameters())
    facts = model.train().info(64)
    assert model.training and facts["parameters"] - facts["gradients"] == frozen > 0
    assert not model.eval().training and model.info(64)["gflops"] == facts["gflops"] and not model.training


@pytest.mark.parametrize("names", [{0: "a", 2: "b"}, {1: "a", 2: "b"}, ["a"], ["a", "b", "c"]])
def test_class_names_are_numbered_without_a_gap(names: Any) -> None:
    with pytest.raises(ValueError, match="number them from 0 to 1"):
        class_names(names, 2)
