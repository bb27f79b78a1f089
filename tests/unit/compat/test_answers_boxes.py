"""Boxes, overlaps, suppression, anchors and losses under the incumbent's names, against loops and formulas by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eyas.compat.answers import loss, metrics, ops, tal
from eyas.compat.losses import E2ELoss, v8DetectionLoss
from eyas.models import DetectionModel
from eyas.types import Progress


@pytest.fixture
def corners() -> Tensor:
    """(12, 4) corners in pixels of an image of 100 x 80."""
    generator = torch.Generator().manual_seed(3)
    low = torch.rand(12, 2, generator=generator) * torch.tensor([60.0, 40.0])
    return torch.cat((low, low + 5 + torch.rand(12, 2, generator=generator) * 30), 1)


# -- forms -------------------------------------------------------------------------------------------------------------
FORMS = {
    "xyxy2xywh": lambda x1, y1, x2, y2: ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1),
    "xyxy2ltwh": lambda x1, y1, x2, y2: (x1, y1, x2 - x1, y2 - y1),
    "xyxy2xywhn": lambda x1, y1, x2, y2: ((x1 + x2) / 1280, (y1 + y2) / 1280, (x2 - x1) / 640, (y2 - y1) / 640),
    "xywh2xyxy": lambda x, y, w, h: (x - w / 2, y - h / 2, x + w / 2, y + h / 2),
    "xywh2ltwh": lambda x, y, w, h: (x - w / 2, y - h / 2, w, h),
    "ltwh2xywh": lambda x, y, w, h: (x + w / 2, y + h / 2, w, h),
    "ltwh2xyxy": lambda x, y, w, h: (x, y, x + w, y + h),
    "xywhn2xyxy": lambda x, y, w, h: (640 * (x - w / 2), 640 * (y - h / 2), 640 * (x + w / 2), 640 * (y + h / 2)),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_are_their_formulas_for_tensors_and_arrays(name: str, corners: Tensor) -> None:
    by_hand = torch.tensor([FORMS[name](*row) for row in corners.tolist()])
    convert = getattr(ops, name)
    torch.testing.assert_close(convert(corners), by_hand)
    torch.testing.assert_close(convert(corners.view(3, 4, 4)), by_hand.view(3, 4, 4))
    as_array = convert(corners.numpy())
    assert isinstance(as_array, np.ndarray) and as_array.dtype == np.float32
    np.testing.assert_allclose(as_array, by_hand.numpy(), rtol=1e-5)
    assert convert(corners.double()).dtype == torch.float64
    assert convert(np.zeros((0, 4))).shape == (0, 4)


def test_whole_numbers_have_halves() -> None:
    assert ops.xyxy2xywh(np.array([[0, 0, 3, 5]])).tolist() == [[1.5, 2.5, 3, 5]]
    assert ops.xyxy2xywh(torch.tensor([[0, 0, 3, 5]])).tolist() == [[1.5, 2.5, 3, 5]]


def test_clipping_is_in_place_and_padding_and_limits_count() -> None:
    boxes = torch.tensor([[-5.0, 3, 120, 90]])
    assert ops.clip_boxes(boxes, (80, 100)) is boxes and boxes.tolist() == [[0, 3, 100, 80]]
    array = np.array([[-5.0, 3, 120, 90, 0.5]])
    assert ops.clip_boxes(array, (80, 100)).tolist() == [[0, 3, 100, 80, 0.5]]
    assert ops.xywhn2xyxy(torch.tensor([0.5, 0.5, 1, 1]), 10, 20, padw=3, padh=4).tolist() == [3, 4, 13, 24]
    assert ops.xyxy2xywhn(torch.tensor([-10.0, 0, 10, 10]), 10, 10, clip=True).tolist() == [0.5, 0.5, 1, 1]


def test_boxes_of_the_input_are_mapped_back_to_the_image() -> None:
    """480 x 640 in a square of 320 is halved, with 40 pixels of grey above; 5 columns keep their last."""
    boxes = torch.tensor([[10.0, 50, 110, 150, 7], [-50, -50, 400, 400, 8]])
    expected = [[20, 20, 220, 220, 7], [0, 0, 640, 480, 8]]
    assert ops.scale_boxes((320, 320), boxes, (480, 640)).tolist() == expected
    assert ops.scale_boxes((320, 320), boxes.numpy(), (480, 640)).tolist() == expected
    assert boxes[0].tolist() == [10, 50, 110, 150, 7]
    stored = ((0.5, 0.5), (0.0, 40.0))
    assert ops.scale_boxes((1, 1), boxes, (480, 640), ratio_pad=stored).tolist() == expected
    centres = torch.tensor([[60.0, 100, 100, 100]])
    assert ops.scale_boxes((320, 320), centres, (480, 640), xywh=True).tolist() == [[120, 120, 200, 200]]
    assert ops.scale_boxes((320, 320), boxes[:1, :4], (480, 640), padding=False).tolist() == [[20, 100, 220, 300]]


# -- suppression -------------------------------------------------------------------------------------------------------
def overlap_by_hand(a: list[float], b: list[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def suppressed_by_hand(rows: list[list[float]], iou: float, agnostic: bool) -> list[list[float]]:
    kept: list[list[float]] = []
    for row in sorted(rows, key=lambda row: -row[4]):
        rivals = [other for other in kept if agnostic or other[5] == row[5]]
        if all(overlap_by_hand(row, other) <= iou for other in rivals):
            kept.append(row)
    return kept


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_suppression_is_the_plain_loop(agnostic: bool, multi_label: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    centres = torch.rand(2, 2, 60, generator=generator) * 100
    sizes = 20 + 20 * torch.rand(2, 2, 60, generator=generator)
    scores = torch.rand(2, 3, 60, generator=generator)
    found = ops.non_max_suppression(
        (torch.cat((centres, sizes, scores), 1), "raw"), 0.3, 0.4, agnostic=agnostic, multi_label=multi_label
    )
    for image in range(2):
        boxes = ops.xywh2xyxy(torch.cat((centres[image], sizes[image])).T).tolist()
        rows = []
        for box, row in zip(boxes, scores[image].T.tolist(), strict=True):
            labels = range(3) if multi_label else [row.index(max(row))]
            rows += [[*box, row[label], float(label)] for label in labels if row[label] > 0.3]
        expected = suppressed_by_hand(rows, 0.4, agnostic)
        assert len(expected) < len(rows)
        torch.testing.assert_close(found[image], torch.tensor(expected))


def test_suppression_chooses_classes_and_limits_and_refuses_other_tasks() -> None:
    pred = torch.zeros(1, 6, 9)
    pred[0, :4] = torch.stack((torch.arange(9.0) * 50, torch.full((9,), 20.0), *torch.full((2, 9), 10.0)))
    pred[0, 4, :4], pred[0, 5, 4:] = 0.9, torch.linspace(0.5, 0.9, 5)
    assert [len(rows) for rows in (ops.non_max_suppression(pred)[0], ops.non_max_suppression(pred, max_det=3)[0])] == [
        9,
        3,
    ]
    assert ops.non_max_suppression(pred, classes=[1])[0][:, 5].tolist() == [1] * 5
    finished = torch.tensor([[[0.0, 0, 9, 9, 0.9, 2], [0, 0, 9, 9, 0.1, 1]]])
    assert torch.equal(ops.non_max_suppression(finished)[0], finished[0, :1])
    with pytest.raises(ValueError, match="rotated is not supported"):
        ops.non_max_suppression(pred, rotated=True)
    with pytest.raises(ValueError, match="nc is not supported"):
        ops.non_max_suppression(pred, nc=1)
    with pytest.raises(ValueError, match=r"conf_thres=1\.5 must be"):
        ops.non_max_suppression(pred, 1.5)


def test_small_helpers() -> None:
    assert [ops.make_divisible(x, 8) for x in (1, 8, 8.1, 640)] == [8, 8, 16, 640]
    assert ops.make_divisible(33, torch.tensor([8, 32])) == 64
    profile = ops.Profile()
    with profile:
        pass
    with profile:
        pass
    assert 0 <= profile.dt <= profile.t < 1


# -- overlaps ----------------------------------------------------------------------------------------------------------
def kinds_by_hand(a: list[float], b: list[float]) -> dict[str, float]:
    iou = overlap_by_hand(a, b)
    hull_w, hull_h = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    union -= iou * union / (1 + iou)
    apart = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    diou = iou - apart / (hull_w**2 + hull_h**2)
    v = 4 / math.pi**2 * (math.atan((b[2] - b[0]) / (b[3] - b[1])) - math.atan((a[2] - a[0]) / (a[3] - a[1]))) ** 2
    giou = iou - (hull_w * hull_h - union) / (hull_w * hull_h)
    return {"IoU": iou, "GIoU": giou, "DIoU": diou, "CIoU": diou - v * v / (v - iou + 1)}


@pytest.mark.parametrize("kind", ["IoU", "GIoU", "DIoU", "CIoU"])
def test_overlaps_are_their_formulas(kind: str, corners: Tensor) -> None:
    a, b = corners[:6], corners[6:]
    asked = {} if kind == "IoU" else {kind: True}
    by_hand = [kinds_by_hand(x, y)[kind] for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    found = metrics.bbox_iou(a, b, xywh=False, **asked)
    assert found.shape == (6, 1)
    torch.testing.assert_close(found[:, 0], torch.tensor(by_hand), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        metrics.bbox_iou(ops.xyxy2xywh(a), ops.xyxy2xywh(b), **asked), found, atol=1e-5, rtol=1e-4
    )
    one_to_all = metrics.bbox_iou(a[:1], b, xywh=False, **asked)
    assert one_to_all.shape == (6, 1)


def test_overlaps_of_all_pairs(corners: Tensor) -> None:
    a, b = corners[:5], corners[5:]
    table = torch.tensor([[overlap_by_hand(x, y) for y in b.tolist()] for x in a.tolist()])
    torch.testing.assert_close(metrics.box_iou(a, b), table)
    np.testing.assert_allclose(metrics.bbox_ioa(a.numpy(), b.numpy(), iou=True), table.numpy(), rtol=1e-4, atol=1e-6)
    area_a, area_b = ((x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b))
    covered = table * (area_a[:, None] + area_b) / (1 + table) / area_b
    np.testing.assert_allclose(metrics.bbox_ioa(a.numpy(), b.numpy()), covered.numpy(), rtol=1e-3, atol=1e-5)


# -- anchors and assignment --------------------------------------------------------------------------------------------
def test_distances_and_boxes_are_each_others_inverse() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(7, 2, generator=generator) * 20
    distance = torch.rand(2, 7, 4, generator=generator) * 5
    boxes = tal.dist2bbox(distance, points, xywh=False)
    by_hand = torch.cat((points - distance[..., :2], points + distance[..., 2:]), -1)
    torch.testing.assert_close(boxes, by_hand)
    torch.testing.assert_close(tal.bbox2dist(points, boxes), distance)
    torch.testing.assert_close(ops.xywh2xyxy(tal.dist2bbox(distance, points)), boxes)
    across = tal.dist2bbox(distance.transpose(1, 2), points.T[None], xywh=False, dim=1)
    torch.testing.assert_close(across, boxes.transpose(1, 2))
    assert tal.bbox2dist(points, boxes, reg_max=3).max() == pytest.approx(2.99)
    assert tal.bbox2dist(points, tal.dist2bbox(-distance, points, xywh=False), reg_max=3).max() == 0


def test_anchors_are_cell_centres_row_by_row() -> None:
    feats = [torch.zeros(1, 5, 2, 3, dtype=torch.float64), torch.zeros(1, 5, 1, 1, dtype=torch.float64)]
    points, stride = tal.make_anchors(feats, torch.tensor([8, 16]))
    assert points.tolist() == [[x + 0.5, y + 0.5] for y in range(2) for x in range(3)] + [[0.5, 0.5]]
    assert stride.flatten().tolist() == [8] * 6 + [16] and points.dtype == torch.float64
    assert tal.make_anchors(feats, [8, 16], 0.0)[0][1].tolist() == [1, 0]


@pytest.fixture
def golden() -> dict[str, Any]:
    """The predictions and targets of spec core J.2."""
    wave = torch.arange(2 * 4 * 126, dtype=torch.float64)
    feats = [torch.zeros(2, 1, h, w) for h, w in ((8, 12), (4, 6), (2, 3))]
    return {
        "boxes": (1.2 + 0.9 * torch.sin(0.37 * wave)).view(2, 4, 126).float(),
        "scores": (-2 + 1.5 * torch.sin(0.53 * wave[: 2 * 3 * 126])).view(2, 3, 126).float(),
        "feats": feats,
        "labels": torch.tensor([[0, 2, 1], [1, 0, 0]])[..., None],
        "targets": torch.tensor(
            [
                [[0.5, 0.5, 0.4, 0.6], [0.25, 0.3, 0.08, 0.1], [0.52, 0.5, 0.3, 0.3]],
                [[0.7, 0.6, 0.5, 0.7], [0, 0, 0, 0], [0, 0, 0, 0]],
            ]
        ),
        "mask": torch.tensor([[1, 1, 1], [1, 0, 0]])[..., None],
    }


def assigned(golden: dict[str, Any], **settings: Any) -> tuple[Tensor, ...]:
    points, stride = tal.make_anchors(golden["feats"], [8, 16, 32])
    boxes = tal.dist2bbox(golden["boxes"].transpose(1, 2), points, xywh=False) * stride
    targets = ops.xywh2xyxy(golden["targets"] * torch.tensor([96.0, 64, 96, 64]))
    assigner = tal.TaskAlignedAssigner(num_classes=3, alpha=0.5, beta=6.0, **settings)
    scores = golden["scores"].transpose(1, 2).sigmoid()
    return assigner(scores, boxes, points * stride, golden["labels"], targets, golden["mask"])


def test_the_assigner_gives_the_recorded_anchors(golden: dict[str, Any]) -> None:
    labels, boxes, scores, owned, objects = assigned(golden, topk=10)
    first = {1: [15, 26, 27], 2: [40, 41, 42, 54, 55, 110, 111], 0: [52, 53, 104, 105, 121]}
    for number, anchors in first.items():
        assert (owned[0] & (objects[0] == number)).nonzero().flatten().tolist() == anchors
        assert labels[0, anchors].unique().tolist() == [golden["labels"][0, number, 0]]
    assert owned[1].nonzero().flatten().tolist() == [43, 57, 58, 106, 107, 111, 112, 117, 118, 125]
    assert scores.shape == (2, 126, 3) and not scores[~owned].any() and not boxes[~owned].any()
    assert (scores.max(-1).values > 0).equal(owned) and not objects[~owned].any()
    one_to_one = assigned(golden, topk=7, topk2=1)[3]
    assert one_to_one[0].nonzero().flatten().tolist() == [26, 54, 105]
    nothing = golden | {"mask": torch.zeros_like(golden["mask"])}
    assert not assigned(nothing, topk=10)[3].any()


# -- losses ------------------------------------------------------------------------------------------------------------
def test_the_box_loss_gives_the_recorded_numbers(golden: dict[str, Any]) -> None:
    points, stride = tal.make_anchors(golden["feats"], [8, 16, 32])
    outputs = golden["boxes"].transpose(1, 2)
    _, targets, scores, owned, _ = assigned(golden, topk=10)
    box, distance = loss.BboxLoss(reg_max=1)(
        outputs,
        tal.dist2bbox(outputs, points, xywh=False),
        points,
        targets / stride,
        scores,
        scores.sum().clamp(min=1),
        owned,
        torch.tensor([64.0, 96.0]),
        stride,
    )
    assert box.item() * 7.5 == pytest.approx(4.332203, rel=1e-4)
    assert distance.item() * 1.5 == pytest.approx(0.138745, rel=1e-4)


def test_distances_in_bins_are_a_cross_entropy_of_two_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(12, 8, generator=generator), torch.rand(3, 4, generator=generator) * 6.9
    logp = logits.log_softmax(-1).view(3, 4, 8)
    by_hand = [
        sum(
            -logp[n, side, int(t)] * (1 - t % 1) - logp[n, side, int(t) + 1] * (t % 1)
            for side, t in enumerate(target[n].tolist())
        )
        / 4
        for n in range(3)
    ]
    torch.testing.assert_close(loss.DFLoss(8)(logits, target)[:, 0], torch.stack(by_hand))
    points, boxes = torch.full((3, 2), 10.0), torch.tensor([[8.0, 9, 13, 14], [6, 8, 12, 12], [9, 9, 11, 11]])
    fg, scores = torch.tensor([[True, False, True]]), torch.ones(1, 3, 2) * 0.25
    box, distance = loss.BboxLoss(8)(logits.view(1, 3, 32), boxes[None], points, boxes[None], scores, scores.sum(), fg)
    each = loss.DFLoss(8)(logits, tal.bbox2dist(points, boxes, 7))[:, 0]
    assert box.item() == pytest.approx(0, abs=1e-4)
    torch.testing.assert_close(distance, (each[0] + each[2]) * 0.5 / 1.5)


def test_class_losses_are_their_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, label = torch.randn(5, 3, generator=generator), (torch.rand(5, 3, generator=generator) > 0.5).float()
    p = logits.sigmoid()
    bce = -(label * p.log() + (1 - label) * (1 - p).log())
    right = label * p + (1 - label) * (1 - p)
    alpha = label * 0.25 + (1 - label) * 0.75
    torch.testing.assert_close(loss.FocalLoss()(logits, label), (alpha * (1 - right) ** 1.5 * bce).mean(1).sum())
    quality = torch.rand(5, 3, generator=generator) * label
    soft = -(quality * p.log() + (1 - quality) * (1 - p).log())
    weight = 0.75 * p**2 * (1 - label) + quality * label
    torch.testing.assert_close(loss.VarifocalLoss()(logits, quality, label), (weight * soft).mean(1).sum())


def test_the_unweighted_end_to_end_loss_is_the_sum_of_its_branches(tiny_model: Any) -> None:
    from types import SimpleNamespace

    torch.manual_seed(0)
    model = DetectionModel(str(tiny_model), nc=3, verbose=False)
    model.args = SimpleNamespace(epochs=5)
    batch = {
        "batch_idx": torch.tensor([0.0]),
        "cls": torch.tensor([[1.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]]),
    }
    preds = model(torch.rand(1, 3, 64, 64))
    criterion = loss.E2EDetectLoss(model)
    criterion.set_progress(Progress(4, 5))
    many = v8DetectionLoss(model, tal_topk=10)(preds["one2many"], batch)[0]
    one, items = v8DetectionLoss(model, tal_topk=1)(preds["one2one"], batch)
    found, found_items = criterion(preds, batch)
    torch.testing.assert_close(found, many + one)
    assert found_items.keys() == items.keys() and not torch.equal(found, E2ELoss(model)(preds, batch)[0])


# -- what strangers pass -----------------------------------------------------------------------------------------------
def test_overlaps_in_half_precision_are_numbers() -> None:
    boxes = torch.tensor([[300.0, 300, 400, 400], [320, 310, 400, 380]])
    for kind in ({}, {"GIoU": True}, {"DIoU": True}, {"CIoU": True}):
        half = metrics.bbox_iou(boxes[:1].half(), boxes.half(), **kind)
        torch.testing.assert_close(half, metrics.bbox_iou(boxes[:1], boxes, **kind))
    assert metrics.bbox_iou(boxes.double(), boxes.double()).dtype is torch.float64
    with pytest.raises(TypeError, match="torch.from_numpy"):
        metrics.box_iou(boxes.numpy(), boxes.numpy())  # type: ignore[arg-type]


def test_boxes_with_other_columns_are_refused_in_words() -> None:
    for rows in (np.zeros((2, 5)), torch.zeros(2, 5)):
        with pytest.raises(ValueError, match=r"must have shape \(\.\.\., 4\), not \(2, 5\)"):
            ops.xywh2xyxy(rows)
    with pytest.raises(ValueError, match="return_idxs=True is not supported"):
        ops.non_max_suppression(torch.zeros(1, 6, 4), return_idxs=True)


def test_the_focal_loss_takes_its_constants_with_the_call() -> None:
    x, y = torch.randn(3, 2), torch.ones(3, 2)
    assert loss.FocalLoss()(x, y, gamma=2.0, alpha=0.5) == loss.FocalLoss(2.0, 0.5)(x, y) != loss.FocalLoss()(x, y)
