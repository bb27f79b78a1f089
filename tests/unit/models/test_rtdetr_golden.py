"""RT-DETR's numbers of spec core C.3, C.4, J.1, J.5: counts, start values, outputs for written-down weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from eyas.models import RTDETRDetectionModel
from eyas.models.rtdetr.anchors import anchor_logits

COUNTS: dict[str, tuple[int, int, int, dict[int, int]]] = {  # parameters, entries, rows of the backbone, per layer
    "l": (
        32_970_476,
        941,
        10,
        {0: 25248, 1: 155072, 3: 839296, 5: 1695360, 6: 2055808, 7: 2055808, 9: 6708480, 11: 789760}
        | {16: 2232320, 21: 2232320, 24: 2232320, 27: 2232320, 28: 7466252},
    ),
    "x": (
        67_467_852,
        1241,
        14,
        {0: 25792, 1: 259200, 3: 1248256, 4: 1788928, 6: 2079232, 7: 2472448, 10: 2472448, 12: 8221696, 13: 9794560}
        | {15: 2168192, 20: 5019648, 31: 5019648, 32: 7564556},
    ),
    "resnet50": (42_925_132, 779, 5, {0: 9536, 1: 215808, 2: 1219584, 3: 7098368, 4: 14964736, 6: 789760}),
    "resnet101": (61_917_260, 1085, 5, {3: 26_090_496, 22: 2232320}),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_of_every_layer(name: str) -> None:
    parameters, entries, backbone, layers = COUNTS[name]
    with torch.device("meta"):  # shapes only: nothing is allocated
        model = RTDETRDetectionModel(f"rtdetr-{name}.yaml", verbose=False)
    counts = [sum(p.numel() for p in layer.parameters()) for layer in model.model]
    assert {i: counts[i] for i in layers} == layers
    assert sum(counts) == parameters
    assert len(model.state_dict()) == entries
    assert len(model.yaml["backbone"]) == backbone
    assert model.stride.tolist() == [32]


def test_three_classes() -> None:
    with torch.device("meta"):
        model = RTDETRDetectionModel("rtdetr-l", nc=3, verbose=False)
    assert sum(p.numel() for p in model.parameters()) == 32_812_241


def test_keys_of_blocks_and_decoder() -> None:
    with torch.device("meta"):
        model = RTDETRDetectionModel("rtdetr-l", verbose=False)
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    decoder = "model.28.decoder.layers.5"
    expected = {
        "model.0.stem2b.conv.weight": (32, 16, 2, 2),
        "model.1.m.5.conv.weight": (48, 48, 3, 3),
        "model.1.sc.conv.weight": (64, 336, 1, 1),
        "model.1.ec.bn.running_mean": (128,),
        "model.2.conv.weight": (128, 1, 3, 3),
        "model.5.m.0.conv1.conv.weight": (192, 512, 1, 1),
        "model.5.m.0.conv2.conv.weight": (192, 1, 5, 5),
        "model.11.ma.in_proj_weight": (768, 256),
        "model.11.fc1.weight": (1024, 256),
        "model.11.norm2.bias": (256,),
        "model.16.m.2.conv1.conv.weight": (256, 256, 3, 3),
        "model.16.m.2.conv2.conv.weight": (256, 256, 1, 1),
        "model.28.input_proj.2.0.weight": (256, 256, 1, 1),
        "model.28.input_proj.2.1.running_var": (256,),
        f"{decoder}.self_attn.in_proj_weight": (768, 256),
        f"{decoder}.cross_attn.sampling_offsets.weight": (192, 256),
        f"{decoder}.cross_attn.attention_weights.weight": (96, 256),
        f"{decoder}.linear1.weight": (1024, 256),
        f"{decoder}.norm3.weight": (256,),
        "model.28.denoising_class_embed.weight": (80, 256),
        "model.28.query_pos_head.layers.0.weight": (512, 4),
        "model.28.enc_output.0.weight": (256, 256),
        "model.28.enc_output.1.weight": (256,),
        "model.28.enc_bbox_head.layers.2.weight": (4, 256),
        "model.28.dec_score_head.5.weight": (80, 256),
        "model.28.dec_bbox_head.5.layers.2.bias": (4,),
    }
    assert {k: shapes.get(k) for k in expected} == expected
    with torch.device("meta"):
        resnet = RTDETRDetectionModel("rtdetr-resnet50", verbose=False).state_dict()
    assert resnet["model.0.layer.0.conv.weight"].shape == (64, 3, 7, 7)
    assert resnet["model.2.layer.0.shortcut.0.conv.weight"].shape == (512, 256, 1, 1)
    assert "model.2.layer.1.shortcut.0.conv.weight" not in resnet


@pytest.mark.parametrize("nc", [1, 80, 365])
def test_start_values(nc: int) -> None:
    torch.manual_seed(0)
    head = RTDETRDetectionModel("rtdetr-tiny", nc=nc, verbose=False).head
    for layer in (head.enc_score_head, *head.dec_score_head):
        assert layer.bias.tolist() == pytest.approx([-math.log(99)] * nc)
    boxes: list[Any] = [head.enc_bbox_head, *head.dec_bbox_head]
    assert all(not mlp.layers[-1].weight.any() and not mlp.layers[-1].bias.any() for mlp in boxes)
    first, *others = (layer.state_dict() for layer in head.decoder.layers)
    assert all(torch.equal(first[k], other[k]) for other in others for k in first)
    limit = math.sqrt(6 / (64 + 64))  # Xavier's bound
    assert 0.9 * limit < head.enc_output[0].weight.abs().max() <= limit


GOLDEN: dict[str, dict[str, Any]] = {
    "l": {
        "rows": [
            (0.99831, 0.91298, 0.07642, 0.05312, 0.81522, 63),
            (0.99831, 0.91298, 0.07642, 0.05312, 0.81416, 62),
        ],
        "first": (0.96297, 0.18812, 0.28094, 0.21262),
        "sums": (191.49928, -447.63065, 7800.00723, 138.68674, 79.41175),
    },
    "resnet50": {
        "rows": [(0.99711, 0.97346, 0.01488, 0.07317, 0.73185, 70)],
        "sums": (206.59862, 8.10405, 3919.94008, 148.52315, 164.23889),
    },
}


@pytest.mark.parametrize("name", GOLDEN)
def test_outputs_for_written_down_weights(
    write_weights: Callable[[torch.nn.Module], None], golden_image: torch.Tensor, name: str
) -> None:
    with torch.device("meta"):  # every value is written below: random ones would only take time
        model = RTDETRDetectionModel(f"rtdetr-{name}", verbose=False).eval()
    write_weights(model.to_empty(device="cpu"))
    with torch.no_grad():
        y, pred = model(golden_image)
    golden = GOLDEN[name]
    assert y.shape == (1, 300, 6)
    assert pred.dec_bboxes.shape == (1, 1, 126, 4), "126 cells give 126 queries"
    for row, expected in zip(y[0], golden["rows"], strict=False):
        assert row.tolist() == pytest.approx(expected, rel=1e-3)
    scores = pred.dec_scores
    sums = (pred.dec_bboxes.abs().sum(), scores.sum(), scores.abs().sum(), pred.enc_bboxes.sum(), pred.enc_scores.sum())
    assert [float(s) for s in sums] == pytest.approx(golden["sums"], rel=1e-3)
    if "first" in golden:
        assert pred.dec_bboxes[0, 0, 0].tolist() == pytest.approx(golden["first"], rel=1e-3)


def test_anchors() -> None:
    logits, valid = anchor_logits([(2, 3), (1, 2)])
    assert logits.shape == (1, 8, 4)
    assert logits[0, 0].tolist() == pytest.approx((-1.6094, -1.0986, -2.9444, -2.9444), abs=1e-4)
    assert logits[0, 1].sigmoid().tolist() == pytest.approx((0.5, 0.25, 0.05, 0.05)), "rows before columns"
    assert logits[0, 6].tolist() == pytest.approx((-1.0986, 0, -2.1972, -2.1972), abs=1e-4)
    assert valid.all()
    logits, valid = anchor_logits([(1, 100)])
    assert (~valid).nonzero()[:, 1].tolist() == [0, 99], "centres at 0.005 and 0.995"
    assert logits[0, 0].isinf().all()
