"""Losses of single elements against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from eyas.losses import anchor_points, bce_loss, ciou_loss, dfl_loss, focal_loss, l1_loss, varifocal_loss
from eyas.losses.elementwise import dfl_expectation


def test_bce() -> None:
    x, t = torch.tensor([0.3, -2.0]), torch.tensor([0.25, 1.0])
    p = x.sigmoid()
    torch.testing.assert_close(bce_loss(x, t), -(t * p.log() + (1 - t) * (1 - p).log()))


def test_ciou_and_l1() -> None:
    box = torch.tensor([[0.0, 0, 3, 5]])
    assert ciou_loss(box, box).item() == pytest.approx(0, abs=1e-6)
    assert l1_loss(torch.tensor([1.0, 2, 3, 4]), torch.tensor([2.0, 2, 1, 4])).item() == pytest.approx(0.75)


def test_dfl_is_smallest_at_its_target_and_limits_it() -> None:
    target = torch.tensor([[2.25, 0.0, 3.0, 50.0]])
    probability = torch.full((4, 8), 1e-9)
    for side, (value, left) in enumerate([(2.25, 2), (0.0, 0), (3.0, 3), (6.99, 6)]):
        probability[side, left] += 1 - (value - left)
        probability[side, left + 1] += value - left
    best = dfl_loss(probability.log()[None], target)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert best[0, 0].item() == pytest.approx(entropy, rel=1e-5)
    assert best[0, 1].item() == pytest.approx(0, abs=1e-6)
    assert (dfl_loss(torch.zeros(1, 4, 8), target) > best).all()
    torch.testing.assert_close(dfl_expectation(probability.log()[None])[0, :3], target[0, :3], atol=1e-5, rtol=0)


def test_anchor_points() -> None:
    points, strides = anchor_points([torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 1, 2)], [8, 16])
    assert points.tolist() == [
        [0.5, 0.5],
        [1.5, 0.5],
        [2.5, 0.5],
        [0.5, 1.5],
        [1.5, 1.5],
        [2.5, 1.5],
        [0.5, 0.5],
        [1.5, 0.5],
    ]
    assert strides.flatten().tolist() == [8] * 6 + [16] * 2


def varifocal_by_hand(z: float, target: float, positive: bool, alpha: float, gamma: float) -> float:
    p = 1 / (1 + math.exp(-z))
    weight = target if positive else alpha * p**gamma
    return -weight * (target * math.log(p) + (1 - target) * math.log(1 - p))


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (0.25, 1.5)])
def test_varifocal(alpha: float, gamma: float) -> None:
    logits = torch.tensor([[0.3, -2.0, 4.0], [-0.5, 1.0, 0.0]])
    targets = torch.tensor([[0.25, 0.0, 0.0], [0.0, 0.0, 1.0]])
    positive = torch.tensor([[True, False, False], [True, False, True]])  # one is wanted although its target is 0
    loss = varifocal_loss(logits, targets, positive, alpha=alpha, gamma=gamma)
    cells = [(i, j) for i in range(2) for j in range(3)]
    expected = [varifocal_by_hand(logits[c].item(), targets[c].item(), bool(positive[c]), alpha, gamma) for c in cells]
    assert loss.flatten().tolist() == pytest.approx(expected, rel=1e-5)
    assert loss[1, 0] == 0
    by_target = varifocal_loss(logits, targets, alpha=alpha, gamma=gamma)
    assert by_target[1, 0] > 0
    assert torch.equal(by_target[positive == (targets > 0)], loss[positive == (targets > 0)])


def test_the_gradient_of_varifocal_takes_its_weights_as_constants() -> None:
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(50, generator=rng, dtype=torch.float64).requires_grad_()
    targets = torch.rand(50, generator=rng, dtype=torch.float64) * (torch.rand(50, generator=rng) > 0.5)
    varifocal_loss(z, targets).sum().backward()
    step, x = 1e-5, z.detach()
    weight = torch.where(targets > 0, targets, 0.75 * x.sigmoid() ** 2)
    constant = weight * (bce_loss(x + step, targets) - bce_loss(x - step, targets)) / (2 * step)
    torch.testing.assert_close(z.grad, constant, rtol=1e-6, atol=1e-9)
    moving = (varifocal_loss(x + step, targets) - varifocal_loss(x - step, targets)) / (2 * step)
    torch.testing.assert_close(z.grad[targets > 0], moving[targets > 0], rtol=1e-6, atol=1e-9)
    assert (z.grad[targets == 0] < 0.8 * moving[targets == 0]).all()  # the incumbent's gradient is that much larger


def test_focal() -> None:
    z = torch.tensor([0.3, -2.0, 4.0, -0.1], dtype=torch.float64).requires_grad_()
    targets = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    p = z.detach().sigmoid()
    expected = torch.where(targets > 0, -0.3 * (1 - p) ** 1.5 * p.log(), -0.7 * p**1.5 * (1 - p).log())
    torch.testing.assert_close(focal_loss(z, targets, alpha=0.3, gamma=1.5), expected)
    torch.testing.assert_close(focal_loss(z, targets, alpha=0.5, gamma=0), bce_loss(z, targets) / 2)
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, targets), (z,))
