"""Criteria against golden vectors (spec core J.2), on empty batches, and without reading values on the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from eyas.losses import DenseCriterion, EndToEndCriterion
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
