"""Box functions against closed forms, a plain loop and hypothesis' worst cases."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas import boxes as bx

SIDE = st.floats(0.5, 300, width=32)
START = st.floats(-100, 500, width=32)
BOX = st.tuples(START, START, SIDE, SIDE).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
BOXES = st.lists(BOX, min_size=1, max_size=8).map(lambda rows: torch.tensor(rows, dtype=torch.float64))


def plain_iou(a: list[float], b: list[float]) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / union


@settings(max_examples=40, deadline=None)
@given(BOXES)
def test_formats_round_trip(boxes: torch.Tensor) -> None:
    torch.testing.assert_close(bx.cxcywh_to_xyxy(bx.xyxy_to_cxcywh(boxes)), boxes)
    points = boxes[:, :2] * 0.3 + 7
    torch.testing.assert_close(bx.distances_to_boxes(bx.boxes_to_distances(boxes, points), points), boxes)


@settings(max_examples=40, deadline=None)
@given(BOXES, BOXES)
def test_pairwise_iou_equals_the_plain_loop(a: torch.Tensor, b: torch.Tensor) -> None:
    expected = torch.tensor([[plain_iou(p, q) for q in b.tolist()] for p in a.tolist()], dtype=torch.float64)
    torch.testing.assert_close(bx.pairwise_iou(a, b), expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(bx.pairwise_iou(a, b), bx.pairwise_iou(b, a).T)


@settings(max_examples=40, deadline=None)
@given(BOXES)
def test_overlap_family_is_ordered_and_one_on_equal_boxes(boxes: torch.Tensor) -> None:
    other = boxes.flip(0) + 3
    iou = bx.elementwise_iou(boxes, other)
    giou = bx.elementwise_giou(boxes, other)
    ciou = bx.elementwise_ciou(boxes, other)
    assert ((iou >= 0) & (iou <= 1)).all()
    assert ((giou >= -1 - 1e-9) & (giou <= iou + 1e-9)).all()
    assert (ciou <= iou + 1e-6).all()
    ones = torch.ones(len(boxes), dtype=torch.float64)
    torch.testing.assert_close(bx.elementwise_iou(boxes, boxes), ones)
    torch.testing.assert_close(bx.elementwise_giou(boxes, boxes), ones)
    torch.testing.assert_close(bx.elementwise_ciou(boxes, boxes), ones, atol=1e-5, rtol=0)


def test_closed_forms() -> None:
    a, b = torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 1, 3, 3])
    assert bx.elementwise_iou(a, b).item() == pytest.approx(1 / 7)
    assert bx.elementwise_giou(a, b).item() == pytest.approx(1 / 7 - 2 / 9)
    assert bx.elementwise_ciou(a, b).item() == pytest.approx(1 / 7 - 2 / 18, abs=1e-6)  # equal aspect: no third term
    tall = torch.tensor([0.0, 0, 1, 4])
    iou = 2 / 6
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(1 / 4)) ** 2
    distance = (0.5**2 + 1.0**2) / (2**2 + 4**2)
    assert bx.elementwise_ciou(tall, a).item() == pytest.approx(iou - distance - v * v / (1 - iou + v), abs=1e-6)


def test_ciou_gradient_equals_finite_differences() -> None:
    """The aspect weight is a constant for the gradient, so compare where the aspects agree: there it has no slope."""
    a = torch.tensor([[0.0, 0, 4, 6]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[1.0, 2, 5, 8]], dtype=torch.float64)
    (grad,) = torch.autograd.grad(bx.elementwise_ciou(a, b).sum(), a)
    step = 1e-5
    for i in range(4):
        shift = torch.zeros(1, 4, dtype=torch.float64)
        shift[0, i] = step
        up, down = bx.elementwise_ciou(a + shift, b), bx.elementwise_ciou(a - shift, b)
        assert grad[0, i].item() == pytest.approx(((up - down) / (2 * step)).item(), abs=1e-6)


def test_area_clip_and_empty() -> None:
    assert bx.box_area(torch.tensor([[0.0, 0, 2, 3], [2, 2, 1, 5]])).tolist() == [6, 0]
    assert bx.clip_boxes(torch.tensor([[-5.0, 3, 700, 900]]), (480, 640)).tolist() == [[0, 3, 640, 480]]
    empty = torch.zeros(0, 4)
    assert bx.pairwise_iou(empty, torch.ones(3, 4)).shape == (0, 3)
    assert bx.clip_boxes(empty, (4, 4)).shape == (0, 4)
    assert bx.unletterbox(empty, ((1, 1), (0, 0)), (4, 4)).shape == (0, 4)


def test_unletterbox_undoes_resize_and_padding() -> None:
    original = torch.tensor([[10.0, 20, 100, 200]])
    gain_h, gain_w, left, top = 0.5, 0.25, 7.0, 3.0
    network = original * torch.tensor([gain_w, gain_h, gain_w, gain_h]) + torch.tensor([left, top, left, top])
    torch.testing.assert_close(bx.unletterbox(network, ((gain_h, gain_w), (left, top)), (300, 400)), original)
    assert bx.unletterbox(network, ((gain_h, gain_w), (left, top)), (150, 50)).tolist() == [[10, 20, 50, 150]]


def test_the_weight_of_the_aspect_term_is_a_constant_to_the_gradient() -> None:
    """Zheng et al.: the gradient is that of IoU - distance - alpha * aspect with alpha held."""
    a = torch.tensor([[0.0, 0, 10, 4]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[2.0, 1, 6, 9]], dtype=torch.float64)
    (found,) = torch.autograd.grad(bx.elementwise_ciou(a, b).sum(), a)
    w, h = a[:, 2] - a[:, 0], a[:, 3] - a[:, 1]
    inter = (torch.minimum(a[:, 2], b[:, 2]) - torch.maximum(a[:, 0], b[:, 0])) * (
        torch.minimum(a[:, 3], b[:, 3]) - torch.maximum(a[:, 1], b[:, 1])
    )
    iou = inter / (w * h + 32 - inter)
    hull = (torch.maximum(a[:, 2], b[:, 2]) - torch.minimum(a[:, 0], b[:, 0])) ** 2
    hull = hull + (torch.maximum(a[:, 3], b[:, 3]) - torch.minimum(a[:, 1], b[:, 1])) ** 2
    distance = ((a[:, 0] + a[:, 2] - 8) ** 2 + (a[:, 1] + a[:, 3] - 10) ** 2) / 4 / hull
    aspect = 4 / math.pi**2 * (math.atan(4 / 8) - torch.atan(w / h)) ** 2
    alpha = (aspect / (1 - iou + aspect)).detach()
    (expected,) = torch.autograd.grad((iou - distance - alpha * aspect).sum(), a)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
