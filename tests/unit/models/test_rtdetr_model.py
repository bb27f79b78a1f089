"""What an `RTDETRDetectionModel` promises to the rest."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from eyas.losses import SetCriterion
from eyas.models import (
    MODELS,
    DetectionModel,
    ModelTableError,
    RTDETRDetectionModel,
    UnknownModelError,
    build_detector,
    detector_class,
    load_weights,
    model_table,
)
from eyas.optim.select import depths, select

OWN = [name for name in MODELS if detector_class(model_table(name)) is RTDETRDetectionModel]


def batch(rows: int = 3, size: int = 64, images: int = 2, nc: int = 3) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    return {
        "img": torch.rand(images, 3, size, size, generator=g),
        "batch_idx": torch.zeros(rows),  # the second image is empty
        "cls": torch.randint(0, nc, (rows, 1), generator=g).float(),
        "bboxes": torch.rand(rows, 4, generator=g) * 0.4 + 0.2,
        "max_objects": rows,
    }


@pytest.fixture(scope="module")
def tiny() -> RTDETRDetectionModel:
    torch.manual_seed(0)
    return RTDETRDetectionModel("rtdetr-tiny", nc=3, names=["a", "b", "c"], verbose=False)


@pytest.mark.parametrize("name", OWN)
def test_every_model_is_described(name: str) -> None:
    with torch.device("meta"):
        model = build_detector(name, nc=3, verbose=False)
        again = RTDETRDetectionModel(model.yaml, verbose=False)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    parts = model.sections()
    covered = [p for s in ("backbone", "neck", "head") for p in parts[s]]
    for parameter, _ in model.named_parameters():
        assert sum(parameter.startswith(p) for p in covered) == 1
    assert [s for s in parts if s.startswith("backbone.")] == [f"backbone.p{k}" for k in (2, 3, 4, 5)]
    assert sum((parts[f"backbone.p{k}"] for k in (2, 3, 4, 5)), ()) == parts["backbone"]
    first = parts["neck"][0]
    assert first == f"model.{len(model.yaml['backbone'])}."
    level = depths(model)
    assert max(level.values()) == len(model.model) - 1 == level[select(model, "head.box")[0]]
    assert 0 < model.yaml["lr_ratio"] <= 1


@pytest.mark.parametrize(("name", "gflops"), [("l", 110)])
def test_operations_are_those_that_were_published(name: str, gflops: float) -> None:
    with torch.device("meta"):
        model = RTDETRDetectionModel(f"rtdetr-{name}", verbose=False)
    assert model.info(640)["gflops"] == pytest.approx(gflops, rel=0.01)


@pytest.mark.parametrize("rows", [1, 3, 0])
def test_loss_and_gradients(tiny: RTDETRDetectionModel, rows: int) -> None:
    model = copy.deepcopy(tiny).train()
    loss, items = model(batch(rows))
    assert loss.shape == (3,)
    assert loss.isfinite().all()
    assert list(items) == ["giou_loss", "cls_loss", "l1_loss"]
    loss.sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_a_training_step_does_not_wait_for_the_device() -> None:
    """On the meta device nothing has a value, so asking for one is an error."""
    with torch.device("meta"):
        model = RTDETRDetectionModel("rtdetr-tiny", nc=3, verbose=False).train()
    data = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in batch().items()}
    pred = model.predict_batch(data)
    assert pred.dn_meta.split == (48, 84), "8 groups of 2 x 3 slots, and a query for every cell"
    sum(t.sum() for t in pred[:4]).backward()


def test_a_crowded_image(tiny: RTDETRDetectionModel) -> None:
    model = copy.deepcopy(tiny).train()
    loss, _ = model(batch(130))
    assert loss.isfinite().all()


def test_the_loss_falls(tiny: RTDETRDetectionModel) -> None:
    torch.manual_seed(0)
    model = copy.deepcopy(tiny).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = model(batch())[0].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0], losses


def test_tiny_is_tiny(tiny: RTDETRDetectionModel) -> None:
    assert 500_000 < sum(p.numel() for p in tiny.parameters()) < 1_000_000
    attention = tiny.head.decoder.layers[0].self_attn
    assert (attention.embed_dim, attention.num_heads, len(tiny.head.decoder.layers)) == (64, 4, 3)
    kinds = {type(layer).__name__ for layer in tiny.model}
    with torch.device("meta"):
        large = RTDETRDetectionModel("rtdetr-l", verbose=False)
    assert kinds == {type(layer).__name__ for layer in large.model}
    heights = [m.shape[-1] for m in tiny.eval().head_inputs(torch.zeros(1, 3, 128, 128))]
    assert heights == [16, 8, 4]


def test_head_settings(tiny: RTDETRDetectionModel) -> None:
    model = copy.deepcopy(tiny).eval()
    x = batch()["img"]
    with torch.no_grad():
        assert model(x)[0].shape == (2, 100, 6)
        model.set_head_attr(max_det=10, end2end=True)
        assert model(x)[0].shape == (2, 10, 6)
        model.set_head_attr(agnostic_nms=True)
        assert model(x)[0].shape == (2, 10, 6)
    assert model.end2end
    with pytest.raises(ValueError, match="needs no NMS"):
        model.set_head_attr(end2end=False)
    with pytest.raises(ValueError, match="no setting 'max_dets'"):
        model.set_head_attr(max_dets=3)


def test_boxes_in_pixels(tiny: RTDETRDetectionModel) -> None:
    assert tiny.stretch
    y = torch.tensor([[[0.5, 0.25, 0.5, 0.1, 0.9, 2.0]]])
    got = tiny.in_pixels(y, 200, 100)
    torch.testing.assert_close(got, torch.tensor([[[25.0, 40, 75, 60, 0.9, 2]]]))
    yolo = DetectionModel("yolo26n", nc=3, verbose=False)
    assert not yolo.stretch
    assert yolo.in_pixels(y, 200, 100) is y


def test_criterion_takes_the_models_gains() -> None:
    model = RTDETRDetectionModel("rtdetr-tiny", nc=3, verbose=False)
    criterion = model.init_criterion()
    assert isinstance(criterion, SetCriterion)
    assert criterion.gains == {"giou": 2.0, "cls": 1.0, "l1": 5.0}
    assert (criterion.alpha, criterion.gamma) == (0.25, 1.5)
    model.gains = {"box": 1.0, "cls": 2.0, "dfl": 3.0}
    model.class_weights = [1.0, 2.0, 3.0]
    criterion = model.init_criterion()
    assert criterion.gains == {"giou": 1.0, "cls": 2.0, "l1": 3.0}
    assert criterion.class_weights.flatten().tolist() == [1, 2, 3]


def test_validation_loss_equals_that_of_its_own_predictions(tiny: RTDETRDetectionModel) -> None:
    model = copy.deepcopy(tiny).eval()
    with torch.no_grad():
        data = batch()
        a, _ = model.loss(data)
        b, _ = model.loss(data, model(data["img"]))
    assert torch.equal(a, b)


def test_state_survives_copying_saving_and_the_loss(tiny: RTDETRDetectionModel) -> None:
    keys = list(tiny.state_dict())
    model = copy.deepcopy(tiny)
    model.loss(batch())
    assert list(model.state_dict()) == keys, "the criterion leaked into the state"
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = RTDETRDetectionModel(model.yaml, nc=3, verbose=False)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    x = batch()["img"]
    assert torch.equal(model.eval()(x)[0], other.eval()(x)[0])


def test_any_input_size_of_whole_cells(tiny: RTDETRDetectionModel) -> None:
    model = copy.deepcopy(tiny).eval()
    for h, w in ((32, 96), (128, 64), (32, 32)):
        cells = h * w // 1024 * 21
        with torch.no_grad():
            assert model(torch.rand(1, 3, h, w))[1].dec_bboxes.shape[2] == min(100, cells)


def test_fuse_keeps_outputs(tiny: RTDETRDetectionModel) -> None:
    torch.manual_seed(0)
    model = copy.deepcopy(tiny).eval()
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_var.uniform_(0.5, 1.5)
            m.running_mean.normal_(0, 0.1)
    x = batch()["img"]
    with torch.no_grad():
        expected = model(x)[1]
        assert not model.is_fused()
        assert model.fuse() is model
        assert model.is_fused()
        got = model.fuse()(x)[1]
    for a, b in zip(got[:4], expected[:4], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_sections_of_the_head(tiny: RTDETRDetectionModel) -> None:
    parts = tiny.sections()
    last = len(tiny.model) - 1
    assert parts["head"] == (f"model.{last}.",)
    heads = [n for n, _ in tiny.named_parameters() if "dec_" in n or "enc_" in n or "class_embed" in n]
    heads = [n for n in heads if "enc_output" not in n]
    assert all(n.startswith(parts["head.box"]) != n.startswith(parts["head.cls"]) for n in heads)
    assert {n for n in heads if n.startswith(parts["head.cls"])} == set(select(tiny, "head.cls"))
    assert any("denoising_class_embed" in n for n in select(tiny, "head.cls"))


def test_load_follows_class_names(tiny: RTDETRDetectionModel) -> None:
    torch.manual_seed(1)
    model = RTDETRDetectionModel("rtdetr-tiny", nc=4, names=["C", "x", " a ", "b"], verbose=False)
    fresh = copy.deepcopy(model.state_dict())
    source = tiny.state_dict()
    assert model.load(tiny, verbose=False) == len(fresh)
    classes = [k for k in fresh if "score_head" in k or "class_embed" in k]
    assert len(classes) == 2 + 2 * 3 + 1
    for key, value in model.state_dict().items():
        if key in classes:
            assert torch.equal(value[[0, 2, 3]], source[key][[2, 0, 1]])
            assert torch.equal(value[1], fresh[key][1])
        else:
            assert torch.equal(value, source[key])


@pytest.mark.parametrize(
    ("weights", "way"),
    [
        ("rtdetr-r18", r"RTDETR\('rtdetr-r18'\)\.load\('rtdetr-r18'\)"),
        (
            "there/x.pth",
            r"\.pth files are for the official models; write RTDETR\('rtdetr-r50'\)\.load\('there/x.pth'\)",
        ),
        ("best.pt", r"best.pt does not fit rtdetr-tiny: .*checkpoint \(\.pt\).*load\(\) of YOLO or RTDETR"),
    ],
)
def test_weights_of_the_other_layout_are_sent_there(tiny: RTDETRDetectionModel, weights: str, way: str) -> None:
    with pytest.raises(ValueError, match=way):
        load_weights(tiny, weights)
    with pytest.raises(ValueError, match=f"{weights} does not fit rtdetr-tiny: published weights"):
        tiny.load(weights)


def test_load_drops_heads_of_other_classes(tiny: RTDETRDetectionModel) -> None:
    model = RTDETRDetectionModel("rtdetr-tiny", nc=5, verbose=False)
    assert model.load({"model": tiny.state_dict()}, verbose=False) == len(model.state_dict()) - 9
    grey = RTDETRDetectionModel("rtdetr-tiny", nc=3, ch=1, verbose=False)
    assert grey.load(tiny, verbose=False) == len(grey.state_dict())
    first = "model.0.stem1.conv.weight"
    torch.testing.assert_close(grey.state_dict()[first], tiny.state_dict()[first].sum(1, keepdim=True))


USERS = """
nc: 2
scales:
  l: [1.00, 1.00, 1024]
backbone:
  - [-1, 1, HGStem, [8, 16]]
  - [-1, 2, HGBlock, [8, 16, 3]]
  - [-1, 1, DWConv, [16, 3, 2, 1, False]]
  - [-1, 2, HGBlock, [8, 24, 5, True, False]]
  - [-1, 1, ResNetLayer, [24, 8, 2, False, 2]]
head:
  - [-1, 1, Conv, [16, 1, 1, None, 1, 1, False]]
  - [-1, 1, AIFI, [32, 2]]
  - [-1, 1, nn.Upsample, [None, 2, 'nearest']]
  - [[-1, 3], 1, Concat, [1]]
  - [-1, 2, RepC3, [16]]
  - [[9, 6], 1, RTDETRDecoder, [nc, 16, 20, 2, 2, 2, 32, 0.0, nn.ReLU, -1, 10]]
"""


def test_users_files(tmp_path: Path) -> None:
    path = tmp_path / "mine-rtdetr-l.yaml"
    path.write_text(USERS)
    model = build_detector(path, verbose=False)
    assert type(model) is RTDETRDetectionModel
    assert model.nc == 2
    head = model.head
    assert (head.num_queries, head.num_denoising, len(head.decoder.layers)) == (20, 10, 2)
    assert model(batch(nc=2))[0].isfinite().all()
    assert len(model.model[9].m) == 2
    (tmp_path / "plain.yaml").write_text(USERS.replace("scales:\n  l: [1.00, 1.00, 1024]\n", ""))
    plain = RTDETRDetectionModel(tmp_path / "plain.yaml", ch=1, nc=7, verbose=False)
    assert plain.model[0].stem1.conv.in_channels == 1
    assert plain.head.nc == 7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[nc, 16, 20", "[5, 16, 20", "write nc instead"),
        ("32, 0.0, nn.ReLU", "32, 0.1, nn.ReLU", "dropout must be 0"),
        ("32, 0.0, nn.ReLU", "32, 0.0, nn.GELU", "activation relu"),
        ("AIFI, [32, 2]", "AIFI, [32, 3]", "choose a divisor of 16"),
        ("ResNetLayer, [24,", "ResNetLayer, [23,", "write 24 first"),
        ("1, HGStem", "2, HGStem", "cannot be repeated 2 times"),
    ],
)
def test_wrong_rows_are_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(USERS.replace(old, new))
    with pytest.raises(ModelTableError, match=message):
        build_detector(tmp_path / "mine.yaml", verbose=False)


def test_the_class_must_fit_the_table() -> None:
    with pytest.raises(ModelTableError, match="must be Detect for a DetectionModel, not RTDETRDecoder: build_detector"):
        DetectionModel(model_table("rtdetr-tiny"), verbose=False)
    with pytest.raises(ModelTableError, match="must be RTDETRDecoder for a .*, not Detect: build_detector"):
        RTDETRDetectionModel(model_table("yolo26n"), verbose=False)
    named = "no DetectionModel is called 'rtdetr-tiny': .*known models are yolo26n"
    with pytest.raises(UnknownModelError, match=named):
        DetectionModel("rtdetr-tiny", verbose=False)
    with pytest.raises(ModelTableError, match="no table of layers: build it with build_detector"):
        RTDETRDetectionModel("rtdetr-r18", verbose=False)
    assert detector_class(model_table("yolo26s")) is DetectionModel
    assert detector_class(model_table("rtdetr-r18")).__name__ == "RTDETRNet"


def test_same_seed_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(RTDETRDetectionModel("rtdetr-tiny", nc=3, verbose=False).state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
