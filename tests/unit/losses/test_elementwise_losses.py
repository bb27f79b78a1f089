"""Losses of single elements against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from eyas.losses import anchor_points, bce_loss, ciou_loss, dfl_loss, l1_loss
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
