"""Boxes whose edges are distributions: values of the paper's formulae, and closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from eyas.boxes import cxcywh_to_xyxy
from eyas.nn.edges import BINS, bin_distances, expected_distances, move_edges, moves_to, neighbours

# Bins 16 to 32 at a scale of 4 (spec detr 2.4).
UPPER = [0, 0.0760, 0.1578, 0.2457, 0.3404, 0.4422, 0.5518, 0.6698, 0.7967, 0.9332, 1.0801, 1.2381, 1.4082, 1.5912]
UPPER += [1.7881, 2.0, 4.0]


def test_the_distances_of_the_bins() -> None:
    distances = bin_distances(4.0)
    assert distances[16:].tolist() == pytest.approx(UPPER, abs=5e-5)
    assert torch.equal(distances, -distances.flip(0)), "both sides alike"
    assert bin_distances(8.0)[[17, 30, 31, 32]].tolist() == pytest.approx([0.1133, 3.4913, 4.0, 8.0], abs=5e-5)


def test_the_expected_distance_of_known_distributions() -> None:
    distances = bin_distances(4.0, dtype=torch.float64)
    certain = torch.full((4, BINS), -1e4, dtype=torch.float64)
    for edge, place in enumerate((0, 16, 20, 32)):
        certain[edge, place] = 0.0
    assert expected_distances(certain.flatten(), distances).tolist() == distances[[0, 16, 20, 32]].tolist()
    assert expected_distances(torch.zeros(4 * BINS).double(), distances).abs().max() < 1e-12, "symmetric"
    two = torch.full((4, BINS), -1e4, dtype=torch.float64)
    two[:, 31], two[:, 32] = math.log(0.25), math.log(0.75)
    assert expected_distances(two.flatten(), distances).tolist() == pytest.approx([0.25 * 2 + 0.75 * 4] * 4)


def test_gradients_of_the_expectation_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 4 * BINS, dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[0.5, 0.4, 0.2, 0.3]], dtype=torch.float64)

    def boxes(z: torch.Tensor) -> torch.Tensor:
        return move_edges(reference, expected_distances(z, bin_distances(4.0, dtype=torch.float64)), 4.0)

    assert torch.autograd.gradcheck(boxes, (logits,), fast_mode=True)


def test_edges_are_where_the_formula_says() -> None:
    """At a scale of 4 a distance of 1 is a quarter of a side."""
    reference = torch.tensor([0.5, 0.4, 0.2, 0.3])
    moved = move_edges(reference, torch.tensor([1.0, -1.0, 0.0, 2.0]), 4.0)
    assert cxcywh_to_xyxy(moved).tolist() == pytest.approx([0.4 - 0.05, 0.25 + 0.075, 0.6, 0.55 + 0.15])
    assert move_edges(reference, torch.zeros(4), 4.0).tolist() == pytest.approx(reference.tolist())
    turned = move_edges(reference, torch.tensor([-4.0, 0.0, -4.0, 0.0]), 4.0)
    assert turned[2] == pytest.approx(-0.2), "edges may pass each other"


@pytest.mark.parametrize("scale", [4.0, 8.0])
def test_what_is_to_be_predicted_gives_the_box_back(scale: float) -> None:
    torch.manual_seed(1)
    reference, target = 0.1 + 0.4 * torch.rand(50, 4), 0.1 + 0.4 * torch.rand(50, 4)
    moved = moves_to(cxcywh_to_xyxy(target), reference, scale)
    assert torch.allclose(move_edges(reference, moved, scale), target, atol=1e-6)
    distances = bin_distances(scale)
    below, above = neighbours(moved, distances)
    inside = moved.abs() <= distances[-1]
    assert inside.any() and ((above >= 0) & (above <= 1)).all()
    mean = (1 - above) * distances[below] + above * distances[below + 1]
    assert torch.allclose(mean[inside], moved[inside], atol=1e-5)


def test_distances_at_and_beyond_the_ends() -> None:
    distances = bin_distances(4.0)
    below, above = neighbours(torch.tensor([-9.0, -4.0, 0.0, 2.0, 4.0, 9.0, float(distances[20])]), distances)
    assert below.tolist() == [0, 0, 16, 31, 31, 31, 20]
    assert above.tolist() == pytest.approx([0, 0, 0, 0, 1, 1, 0], abs=1e-5)
