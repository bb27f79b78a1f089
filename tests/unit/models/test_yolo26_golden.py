"""YOLO26's numbers of spec core C.1, C.2, J.1: counts of every layer, biases, outputs for written-down weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from eyas.models import DetectionModel

PER_LAYER = {  # layers 0-10, 13, 16, 17, 19, 20, 22, 23; nc 80
    "n": "464, 4672, 6640, 36992, 26080, 147712, 87040, 295424, 346112, 164608, 249728, "
    "119808, 34304, 36992, 95232, 147712, 463104, 309656",
    "s": "928, 18560, 26080, 147712, 103360, 590336, 346112, 1180672, 1380352, 656896, 990976, "
    "477184, 136192, 147712, 378880, 590336, 1843712, 993784",
    "m": "1856, 73984, 111872, 590336, 444928, 2360320, 1380352, 2360320, 1380352, 656896, 990976, "
    "1642496, 542720, 590336, 1511424, 2360320, 1974784, 2921976",
    "l": "1856, 73984, 173824, 590336, 691712, 2360320, 2234368, 2360320, 2234368, 656896, 1455616, "
    "2496512, 756736, 590336, 2365440, 2360320, 1974784, 2921976",
    "x": "2784, 166272, 389760, 1327872, 1553664, 5309952, 5022720, 5309952, 5022720, 1476864, 3264768, "
    "5612544, 1700352, 1327872, 5317632, 5309952, 4436736, 6440952",
}
LAYERS_WITH_PARAMETERS = [*range(11), 13, 16, 17, 19, 20, 22, 23]
ENTRIES = {"n": 708, "s": 708, "m": 768, "l": 1092, "x": 1092}
ONE_TO_ONE = {"n": 154828, "s": 496892, "m": 1460988, "l": 1460988, "x": 3220476}


@pytest.mark.parametrize("scale", PER_LAYER)
def test_parameters_of_every_layer(scale: str) -> None:
    with torch.device("meta"):  # shapes only: nothing is allocated
        model = DetectionModel(f"yolo26{scale}.yaml", verbose=False)
    counts = [sum(p.numel() for p in layer.parameters()) for layer in model.model]
    assert [counts[i] for i in LAYERS_WITH_PARAMETERS] == [int(n) for n in PER_LAYER[scale].split(",")]
    assert sum(counts) == sum(counts[i] for i in LAYERS_WITH_PARAMETERS)
    assert len(model.state_dict()) == ENTRIES[scale]
    assert sum(p.numel() for n, p in model.named_parameters() if "one2one" in n) == ONE_TO_ONE[scale]
    assert model.save == [4, 6, 10, 13, 16, 19, 22]


def test_keys_of_the_smallest_scale() -> None:
    with torch.device("meta"):
        model = DetectionModel("yolo26n", verbose=False)
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items() if k.endswith("conv.weight") or v.ndim == 4}
    expected = {
        "model.2.cv2.conv.weight": (64, 48, 1, 1),
        "model.2.m.0.cv1.conv.weight": (8, 16, 3, 3),
        "model.6.m.0.cv3.conv.weight": (64, 64, 1, 1),
        "model.6.m.0.m.1.cv2.conv.weight": (32, 32, 3, 3),
        "model.9.cv2.conv.weight": (256, 512, 1, 1),
        "model.10.m.0.attn.qkv.conv.weight": (256, 128, 1, 1),
        "model.10.m.0.attn.pe.conv.weight": (128, 1, 3, 3),
        "model.10.m.0.ffn.1.conv.weight": (128, 256, 1, 1),
        "model.22.m.0.0.cv1.conv.weight": (64, 128, 3, 3),
        "model.22.m.0.1.attn.proj.conv.weight": (128, 128, 1, 1),
        "model.23.cv2.0.2.weight": (4, 16, 1, 1),
        "model.23.cv3.2.0.0.conv.weight": (256, 1, 3, 3),
        "model.23.one2one_cv3.1.1.1.conv.weight": (80, 80, 1, 1),
        "model.23.one2one_cv3.0.2.weight": (80, 80, 1, 1),
    }
    assert {k: shapes.get(k) for k in expected} == expected
    order = [k for k in model.state_dict() if k.startswith("model.6.")]
    assert [k.split(".")[2] for k in order] == sorted(k.split(".")[2] for k in order)  # cv1, cv2, m
    assert order[1:6] == [
        f"model.6.cv1.bn.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    ]


def test_start_values() -> None:
    model = DetectionModel("yolo26n", verbose=False)
    assert model.stride.tolist() == [8, 16, 32]
    head = model.head
    for level, expected in enumerate((-11.53664, -10.15035, -8.76405)):
        for branch in head.class_branches:
            assert branch[level][-1].bias.tolist() == pytest.approx([expected] * 80, abs=1e-4)
        for branch in head.box_branches:
            assert branch[level][-1].bias.tolist() == [2.0] * 4
    assert torch.equal(head.cv3[0][2].weight, head.one2one_cv3[0][2].weight)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.03)}
    assert all(m.num_batches_tracked == 0 for m in norms), "learning the strides left traces in the statistics"


GOLDEN = {
    "n": {
        "feats": (139.17272, 105.72499, 24.95821),
        "one2many": (-16.67962, 31.38468, 10.29712, 759.15016),
        "one2one": (29.98104, 37.01506, 15.90331, 764.96946),
        "rows": [
            (51.13474, 19.31047, 46.27351, 16.93281, 0.54961, 17),
            (19.1384, 19.2912, 14.31132, 16.98057, 0.54928, 17),
        ],
    },
    "m": {
        "feats": (683.59013, 403.42501, 81.26082),
        "one2many": (13.36663, 36.84905, -48.62007, 1440.61311),
        "one2one": (-16.03960, 35.51512, -24.73884, 1484.26270),
        "rows": [(89.09329, 6.42207, 90.86672, 9.59822, 0.57885, 16)],
    },
}


@pytest.mark.parametrize("scale", GOLDEN)
def test_outputs_for_written_down_weights(
    write_weights: Callable[[torch.nn.Module], None], golden_image: torch.Tensor, scale: str
) -> None:
    model = DetectionModel(f"yolo26{scale}", verbose=False).eval()
    write_weights(model)
    with torch.no_grad():
        y, raw = model(golden_image)
        model.end2end = False
        dense = model.head.decode(raw)
    golden = GOLDEN[scale]
    assert [f.abs().sum().item() for f in raw["one2many"]["feats"]] == pytest.approx(golden["feats"], rel=1e-4)
    for branch in ("one2many", "one2one"):
        boxes, scores = raw[branch]["boxes"], raw[branch]["scores"]
        sums = [v.item() for t in (boxes, scores) for v in (t.sum(), t.abs().sum())]
        assert sums == pytest.approx(golden[branch], rel=1e-3)
    assert y.shape == (1, 126, 6)
    for row, expected in zip(y[0], golden["rows"], strict=False):
        assert row.tolist() == pytest.approx(expected, rel=1e-3)
    if scale == "n":
        assert raw["one2many"]["boxes"][0, :, 0].tolist() == pytest.approx(
            (-0.06935, -0.07635, -0.05457, -0.02574), abs=2e-5
        )
        assert dense[0, :4, 0].tolist() == pytest.approx((4.05915, 4.20244, -0.99138, -0.81679), abs=1e-4)
        assert dense.sum().item() == pytest.approx(15138.60684, rel=1e-5)
