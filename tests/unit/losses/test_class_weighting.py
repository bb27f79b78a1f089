"""Doubling the weight of a class doubles exactly its gradient, in every branch, and without weights nothing changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eyas.losses import DenseCriterion, EndToEndCriterion, bce_loss, weight_classes
from eyas.losses.class_weighting import as_class_weights
from eyas.models import DetectionModel

NC, IMAGES, ANCHORS = 5, 2, 84


def predictions(seed: int) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(seed)
    return {
        "boxes": torch.rand(IMAGES, 4, ANCHORS, generator=rng) * 3,
        "scores": torch.randn(IMAGES, NC, ANCHORS, generator=rng).requires_grad_(),
        "feats": [torch.zeros(IMAGES, 1, 64 // s, 64 // s) for s in (8, 16, 32)],
    }


def batch() -> dict[str, Tensor]:
    return {
        "batch_idx": torch.tensor([0.0, 0, 1, 1]),
        "cls": torch.tensor([[0.0], [2], [2], [4]]),
        "bboxes": torch.tensor(
            [[0.3, 0.3, 0.4, 0.4], [0.7, 0.6, 0.3, 0.5], [0.5, 0.5, 0.6, 0.6], [0.2, 0.8, 0.2, 0.2]]
        ),
    }


def dense(weights: Any = None, **kw: Any) -> DenseCriterion:
    return DenseCriterion(nc=NC, strides=(8, 16, 32), class_weights=weights, **kw)


def both(weights: Any = None) -> EndToEndCriterion:
    return EndToEndCriterion(dense(weights), dense(weights, topk=7, topk2=1))


def doubled(c: int, nc: int = NC) -> list[float]:
    return [2.0 if i == c else 1.0 for i in range(nc)]


@pytest.mark.parametrize("c", range(NC))
@pytest.mark.parametrize("topk2", [None, 1])
def test_doubling_a_weight_doubles_exactly_that_gradient(c: int, topk2: int | None) -> None:
    gradients = []
    for weights in (None, doubled(c)):
        raw = predictions(0)
        loss, _ = dense(weights, topk2=topk2)(raw, batch())
        gradients.append(torch.autograd.grad(loss[1], raw["scores"])[0])
    factor = torch.tensor(doubled(c)).view(1, NC, 1)
    assert (gradients[0] != 0).all()
    assert torch.equal(gradients[1], gradients[0] * factor)


@pytest.mark.parametrize("c", [2, 3])
def test_both_branches_of_an_end_to_end_loss(c: int) -> None:
    gradients = []
    for weights in (None, doubled(c)):
        preds = {"one2many": predictions(0), "one2one": predictions(1)}
        loss, _ = both(weights)(preds, batch())
        gradients.append(torch.autograd.grad(loss[1], [raw["scores"] for raw in preds.values()]))
    factor = torch.tensor(doubled(c)).view(1, NC, 1)
    for plain, weighted in zip(*gradients, strict=True):
        assert torch.equal(weighted, plain * factor)


def test_through_a_real_model(tiny_model: Path) -> None:
    """The last layer's row of the class gets exactly twice the gradient; box and distance losses stay the same."""
    torch.manual_seed(0)
    model = DetectionModel(tiny_model, nc=NC, verbose=False).train()
    images = torch.rand(IMAGES, 3, 64, 64)
    runs = []
    for weights in (None, torch.tensor(doubled(2))):
        model.class_weights = weights
        model.criterion = model.init_criterion()
        preds = model.predict(images)
        loss, _ = model.criterion(preds, batch())
        scores = [preds[branch]["scores"] for branch in ("one2many", "one2one")]
        biases = [level[-1].bias for level in (*model.head.cv3, *model.head.one2one_cv3)]
        runs.append((loss.detach(), torch.autograd.grad(loss[1], [*scores, *biases])))
    (plain_loss, plain), (weighted_loss, weighted) = runs
    assert torch.equal(plain_loss[[0, 2]], weighted_loss[[0, 2]])
    for before, after in zip(plain[:2], weighted[:2], strict=True):
        assert torch.equal(after, before * torch.tensor(doubled(2)).view(1, NC, 1))
    for before, after in zip(plain[2:], weighted[2:], strict=True):
        assert torch.equal(after, before * torch.tensor(doubled(2)))


@pytest.mark.parametrize("count", [NC - 1, NC + 1])
def test_class_weights_are_one_for_each_class(count: int) -> None:
    with pytest.raises(ValueError, match=f"class_weights has {count} values and the model {NC} classes"):
        as_class_weights([1.0] * count, NC)


def test_without_weights_the_loss_is_the_very_same_tensor() -> None:
    loss = bce_loss(torch.randn(2, 3, NC), torch.rand(2, 3, NC))
    assert weight_classes(loss, None) is loss
    weights = torch.arange(1.0, NC + 1)
    assert torch.equal(weight_classes(loss, weights), loss * weights.view(1, 1, NC))
