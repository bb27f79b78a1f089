"""Criteria against golden vectors (spec core J.2), on empty batches, and without reading values on the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from eyas.boxes import elementwise_giou
from eyas.losses import DenseCriterion, EndToEndCriterion, SetCriterion, anchor_points
from eyas.losses.dense import SupervisedAnchors
from eyas.losses.end_to_end import one_to_many_weight
from eyas.types import Progress

NC, B, A = 3, 2, 126


def raw_predictions(phase: float = 0.0, *, reg_max: int = 1) -> dict[str, Any]:
    """Predictions of a 64 x 96 image, as section J.2 gives them."""
    i = torch.arange(B * 4 * reg_max * A, dtype=torch.float64)
    j = torch.arange(B * NC * A, dtype=torch.float64)
    boxes = (1.2 + 0.9 * torch.sin(0.37 * i + phase)).float().view(B, 4 * reg_max, A)
    scores = (-2 + 1.5 * torch.sin(0.53 * j + phase)).float().view(B, NC, A)
    feats = [torch.zeros(B, 1, 64 // s, 96 // s) for s in (8, 16, 32)]
    return {"boxes": boxes.requires_grad_(), "scores": scores.requires_grad_(), "feats": feats}


def targets() -> dict[str, torch.Tensor]:
    rows = [
        (0, 0, 0.5, 0.5, 0.4, 0.6),
        (0, 2, 0.25, 0.3, 0.08, 0.1),
        (0, 1, 0.52, 0.5, 0.3, 0.3),
        (1, 1, 0.7, 0.6, 0.5, 0.7),
    ]
    t = torch.tensor(rows)
    return {"batch_idx": t[:, 0], "cls": t[:, 1:2], "bboxes": t[:, 2:]}


def no_targets() -> dict[str, torch.Tensor]:
    return {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}


def criterion(**kw: Any) -> DenseCriterion:
    return DenseCriterion(**{"nc": NC, "strides": (8, 16, 32), **kw})


def test_golden_one_to_many() -> None:
    raw = raw_predictions()
    loss, items = criterion()(raw, targets())
    assert loss.tolist() == pytest.approx([8.664407, 57.13863, 0.27749], rel=1e-5)
    assert [v.item() for v in items.values()] == pytest.approx([4.332203, 28.569315, 0.138745], rel=1e-5)
    assert list(items) == ["box_loss", "cls_loss", "l1_loss"]
    assert not any(v.requires_grad for v in items.values())
    loss.sum().backward()
    assert raw["boxes"].grad.abs().sum().item() == pytest.approx(11.22087, rel=1e-5)
    assert raw["scores"].grad.abs().sum().item() == pytest.approx(47.30267, rel=1e-5)


def test_golden_foreground() -> None:
    assigned, _ = criterion().get_assigned_targets_and_loss(raw_predictions(), targets())
    owners = {(0, 1): [15, 26, 27], (0, 2): [40, 41, 42, 54, 55, 110, 111], (0, 0): [52, 53, 104, 105, 121]}
    owners[1, 3] = [43, 57, 58, 106, 107, 111, 112, 117, 118, 125]
    for (image, row), anchors in owners.items():
        assert (assigned.owner[image] == row).nonzero().flatten().tolist() == anchors
    assert assigned.foreground.sum() == sum(map(len, owners.values()))
    assigned, _ = criterion(topk=7, topk2=1).get_assigned_targets_and_loss(raw_predictions(), targets())
    found = {(i, a): assigned.owner[i, a].item() for i, a in assigned.foreground.nonzero().tolist()}
    assert found == {(0, 26): 1, (0, 54): 2, (0, 105): 0, (1, 117): 3}


def test_golden_one_to_one_and_end_to_end() -> None:
    _, items = criterion(topk=7, topk2=1)(raw_predictions(), targets())
    assert [v.item() for v in items.values()] == pytest.approx([3.973388, 45.3834, 0.105236], rel=1e-5)
    both = EndToEndCriterion(criterion(topk=10), criterion(topk=7, topk2=1))
    preds = {"one2many": raw_predictions(0.0), "one2one": raw_predictions(1.0)}
    loss, items = both(preds, targets())
    assert loss.tolist() == pytest.approx([8.321096, 61.946766, 0.258519], rel=1e-5)
    assert [v.item() for v in items.values()] == pytest.approx([3.473926, 40.589657, 0.091317], rel=1e-5)
    assert torch.equal(both((None, preds), targets())[0], loss)  # evaluation gives (decoded, raw)


def test_schedule_is_a_function_of_progress() -> None:
    expected = [0.8, 0.7222, 0.6444, 0.5667, 0.4889, 0.4111, 0.3333, 0.2556, 0.1778, 0.1]
    assert [one_to_many_weight(e, 10) for e in range(10)] == pytest.approx(expected, abs=5e-5)
    assert one_to_many_weight(0, 1) == pytest.approx(0.8)
    assert one_to_many_weight(30, 10) == pytest.approx(0.1)
    both = EndToEndCriterion(criterion(), criterion(topk=7, topk2=1))
    both.set_progress(Progress(epoch=9, epochs=10))
    both.set_progress(Progress(epoch=1, epochs=10))  # going back is no problem: nothing is counted
    assert (both.o2m, both.o2o) == pytest.approx((0.7222222, 0.2777778))


@pytest.mark.parametrize("reg_max", [1, 8])
def test_no_objects(reg_max: int) -> None:
    raw = raw_predictions(reg_max=reg_max)
    loss, _ = criterion(reg_max=reg_max)(raw, no_targets())
    if reg_max == 1:
        assert loss.tolist() == pytest.approx([0, 143.00932, 0], rel=1e-5)
    assert loss[0] == loss[2] == 0
    loss.sum().backward()
    assert (raw["boxes"].grad == 0).all()
    assert raw["scores"].grad.abs().sum() > 0


def test_one_image_without_objects_equals_its_own_share() -> None:
    batch = targets()
    only_first = {k: v[:3] for k, v in batch.items()}
    loss, _ = criterion()(raw_predictions(), only_first)
    assert loss.isfinite().all()
    assigned, _ = criterion().get_assigned_targets_and_loss(raw_predictions(), only_first)
    full, _ = criterion().get_assigned_targets_and_loss(raw_predictions(), batch)
    assert not assigned.foreground[1].any()
    assert torch.equal(assigned.weight[0], full.weight[0])


def test_distributional_distances() -> None:
    raw = raw_predictions(reg_max=8)
    loss, items = criterion(reg_max=8)(raw, targets())
    assert list(items) == ["box_loss", "cls_loss", "dfl_loss"]
    loss.sum().backward()
    assert raw["boxes"].grad.isfinite().all()


def test_wild_background_predictions_do_not_reach_the_gradient() -> None:
    raw = raw_predictions()
    with torch.no_grad():
        raw["boxes"][:, :, 0] = float("inf")  # a corner anchor no object owns
    loss, _ = criterion()(raw, targets())
    assert loss.isfinite().all()
    loss.sum().backward()
    assert raw["boxes"].grad.isfinite().all()


def test_float32_inside_autocast() -> None:
    expected, _ = criterion()(raw_predictions(), targets())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = criterion()(raw_predictions(), targets())
    assert loss.dtype is torch.float32
    assert torch.equal(loss, expected)
    raw = raw_predictions()
    half = {**raw, "boxes": raw["boxes"].half(), "scores": raw["scores"].half()}
    loss, _ = criterion()(half, targets())
    assert loss.dtype is torch.float32
    assert loss.tolist() == pytest.approx(expected.tolist(), rel=1e-2)


def test_class_weights_and_a_replaced_bce() -> None:
    ones, _ = criterion(class_weights=[1, 1, 1])(raw_predictions(), targets())
    plain, _ = criterion()(raw_predictions(), targets())
    assert torch.equal(ones, plain)
    doubled, _ = criterion(class_weights=torch.full((1, 1, NC), 2.0))(raw_predictions(), targets())
    torch.testing.assert_close(doubled, plain * torch.tensor([1.0, 2, 1]))
    swapped = criterion()
    swapped.bce = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 5.0, 1.0]), reduction="none")
    weighted, _ = swapped(raw_predictions(), targets())
    assert weighted[1] > plain[1]
    seen = []
    swapped.bce = lambda x, t: seen.append((x.shape, t.shape)) or (x - t).square()
    swapped(raw_predictions(), targets())
    assert seen == [((B, A, NC), (B, A, NC))]
    with pytest.raises(ValueError, match="one for each class"):
        criterion(class_weights=[1, 2])


def test_gains_scale_their_term_only() -> None:
    plain, _ = criterion()(raw_predictions(), targets())
    changed, _ = criterion(box_gain=15, cls_gain=0.25, dfl_gain=0)(raw_predictions(), targets())
    torch.testing.assert_close(changed, plain * torch.tensor([2.0, 0.5, 0.0]))


@pytest.mark.parametrize("rows", [0, 5])
@pytest.mark.parametrize("reg_max", [1, 4])
def test_nothing_is_read_back_from_the_device(rows: int, reg_max: int) -> None:
    """Fake tensors have shapes and no values: any branch on a value, `.item()` or data-dependent shape raises."""
    both = EndToEndCriterion(criterion(reg_max=reg_max), criterion(topk=7, topk2=1, reg_max=reg_max))
    with FakeTensorMode():
        feats = [torch.empty(B, 1, 64 // s, 96 // s) for s in (8, 16, 32)]
        raw = {
            "boxes": torch.empty(B, 4 * reg_max, A, requires_grad=True),
            "scores": torch.empty(B, NC, A, requires_grad=True),
            "feats": feats,
        }
        batch = {"batch_idx": torch.empty(rows), "cls": torch.empty(rows, 1), "bboxes": torch.empty(rows, 4)}
        loss, _ = both({"one2many": raw, "one2one": raw}, batch)
        loss.sum().backward()
        assert loss.shape == (3,)
        with pytest.raises(RuntimeError):  # the guard itself works
            torch.empty(3).nonzero()[0].item()


# -- what a loss of its own changes ------------------------------------------------------------------------------------
class Generalised(DenseCriterion):
    def box_loss(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return 1 - elementwise_giou(pred, target)


class Centred(DenseCriterion):
    """A fourth term: how far each centre lies from that of its object, in cells."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gains["centre"] = 3.0

    def branch_losses(self, anchors: SupervisedAnchors) -> dict[str, torch.Tensor]:
        low, high = (anchors.boxes - anchors.target_boxes).unflatten(-1, (2, 2)).unbind(-2)
        away = ((low + high) / 2).abs().sum(-1)
        return {**super().branch_losses(anchors), "centre": (away * anchors.assigned.weight).sum()}


OPTIONS: dict[str, Any] = {"nc": NC, "strides": (8, 16, 32)}


def test_another_box_loss_changes_its_term_only() -> None:
    plain, _ = criterion()(raw_predictions(), targets())
    changed, items = Generalised(**OPTIONS)(raw_predictions(), targets())
    assert torch.equal(changed[1:], plain[1:])
    # Independently: anchor by anchor, from what the assigner says.
    raw = raw_predictions()
    assigned, _ = criterion().get_assigned_targets_and_loss(raw, targets())
    total, weight = 0.0, assigned.weight.sum().item()
    points, stride = anchor_points(raw["feats"], (8, 16, 32))
    for image, anchor in assigned.foreground.nonzero().tolist():
        left, top, right, bottom = (raw["boxes"][image, :, anchor] * stride[anchor]).tolist()
        x, y = (points[anchor] * stride[anchor]).tolist()
        overlap = giou((x - left, y - top, x + right, y + bottom), assigned.boxes[image, anchor].tolist())
        total += (1 - overlap) * assigned.weight[image, anchor].item()
    assert items["box_loss"].item() == pytest.approx(7.5 * total / weight, rel=1e-5)


def giou(a: Any, b: Any) -> float:
    """Generalised IoU of two boxes, in the words of its paper."""
    (ax, ay, au, av), (bx, by, bu, bv) = a, b
    inner = max(min(au, bu) - max(ax, bx), 0) * max(min(av, bv) - max(ay, by), 0)
    union = (au - ax) * (av - ay) + (bu - bx) * (bv - by) - inner
    hull = (max(au, bu) - min(ax, bx)) * (max(av, bv) - min(ay, by))
    return inner / union - (hull - union) / hull


def test_a_fourth_loss() -> None:
    raw = raw_predictions()
    loss, items = Centred(**OPTIONS)(raw, targets())
    plain, _ = criterion()(raw_predictions(), targets())
    assert list(items) == ["box_loss", "cls_loss", "l1_loss", "centre_loss"] and torch.equal(loss[:3], plain)
    assigned, _ = criterion().get_assigned_targets_and_loss(raw, targets())
    points, stride = anchor_points(raw["feats"], (8, 16, 32))
    total = 0.0
    for image, anchor in assigned.foreground.nonzero().tolist():
        left, top, right, bottom = raw["boxes"][image, :, anchor].tolist()
        x1, y1, x2, y2 = (assigned.boxes[image, anchor] / stride[anchor]).tolist()
        x, y = points[anchor].tolist()
        away = abs(x + (right - left) / 2 - (x1 + x2) / 2) + abs(y + (bottom - top) / 2 - (y1 + y2) / 2)
        total += away * assigned.weight[image, anchor].item()
    expected = 3 * total / assigned.weight.sum().item()
    assert items["centre_loss"].item() == pytest.approx(expected, rel=1e-4)
    both = EndToEndCriterion(Centred(**OPTIONS), Centred(**OPTIONS, topk=7, topk2=1))
    assert both({"one2many": raw, "one2one": raw}, targets())[0].shape == (4,)


def test_a_loss_without_a_gain_is_refused() -> None:
    made = Centred(**OPTIONS)
    del made.gains["centre"]
    with pytest.raises(ValueError, match="give each loss a gain of its name"):
        made(raw_predictions(), targets())


def test_a_class_loss_that_is_reduced_already_meets_no_class_weights() -> None:
    class Reduced(DenseCriterion):
        def class_loss(self, logits: Any, targets: Any, positive: Any = None) -> torch.Tensor:
            return self.bce(logits, targets).sum()

    plain, _ = criterion()(raw_predictions(), targets())
    assert torch.equal(Reduced(**OPTIONS)(raw_predictions(), targets())[0], plain)
    with pytest.raises(ValueError, match="Leave the sum to the criterion"):
        Reduced(**OPTIONS, class_weights=[1, 2, 3])(raw_predictions(), targets())


def test_the_gains_that_are_applied_are_told_by_option() -> None:
    one = criterion(box_gain=1, cls_gain=2, dfl_gain=3)
    assert one.effects() == criterion(box_gain=1, cls_gain=2, dfl_gain=3, reg_max=4).effects()
    assert one.effects() == Centred(**OPTIONS, box_gain=1, cls_gain=2, dfl_gain=3).effects()
    assert SetCriterion(nc=NC, giou_gain=1, cls_gain=2, l1_gain=3).effects() == one.effects()
    assert one.effects() == {"box": 1, "cls": 2, "dfl": 3} == EndToEndCriterion(one, one).effects()
    other = criterion(box_gain=1, cls_gain=2, dfl_gain=4)
    assert EndToEndCriterion(one, other).effects() == {"box": 1, "cls": 2}
    assert EndToEndCriterion(one, lambda preds, batch: one(preds, batch)).effects() == {}
