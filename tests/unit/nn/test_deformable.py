"""Deformable attention against a plain loop over every query, head, level and point, and finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from eyas.nn.deformable import MSDeformAttn, deformable_sample

SHAPES = [(3, 4), (2, 2), (1, 1)]


def case(points: list[int], dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values, locations (some far outside), and weights of 2 images, 3 queries, 2 heads of 2 channels."""
    g = torch.Generator().manual_seed(3)
    cells, total = sum(h * w for h, w in SHAPES), sum(points)
    value = torch.randn(2, cells, 2, 2, generator=g, dtype=dtype)
    locations = torch.rand(2, 3, 2, total, 2, generator=g, dtype=dtype) * 1.6 - 0.3
    weights = torch.rand(2, 3, 2, total, generator=g, dtype=dtype).softmax(-1)
    return value, locations, weights


def by_loops(value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor, points: list[int]) -> torch.Tensor:
    images, queries, heads = weights.shape[:3]
    out = torch.zeros(images, queries, heads, value.shape[-1], dtype=value.dtype)
    level_of = [level for level, count in enumerate(points) for _ in range(count)]
    starts = [sum(h * w for h, w in SHAPES[:level]) for level in range(len(SHAPES))]
    for b in range(images):
        for q in range(queries):
            for head in range(heads):
                for s, level in enumerate(level_of):
                    h, w = SHAPES[level]
                    x, y = (locations[b, q, head, s] * torch.tensor([w, h]) - 0.5).tolist()
                    for row in (math.floor(y), math.floor(y) + 1):
                        for column in (math.floor(x), math.floor(x) + 1):
                            if 0 <= row < h and 0 <= column < w:
                                share = (1 - abs(x - column)) * (1 - abs(y - row)) * weights[b, q, head, s]
                                out[b, q, head] += share * value[b, starts[level] + row * w + column, head]
    return out.flatten(2)


@pytest.mark.parametrize("points", [[2, 2, 2], [3, 1, 2]], ids=str)
def test_equals_plain_loops(points: list[int]) -> None:
    value, locations, weights = case(points)
    got = deformable_sample(value, SHAPES, locations, weights, points)
    torch.testing.assert_close(got, by_loops(value, locations, weights, points), rtol=1e-10, atol=1e-12)
    if len(set(points)) == 1:
        assert torch.equal(got, deformable_sample(value, SHAPES, locations, weights))


def test_gradients_equal_finite_differences() -> None:
    value, locations, weights = (t.requires_grad_() for t in case([1, 2, 1]))
    # Between cells the sampling has kinks: none of these positions lies near one.
    cells = torch.cat(
        [locations[..., :1, :] * torch.tensor([4, 3]), locations[..., 1:3, :] * 2, locations[..., 3:, :]], -2
    )
    assert ((cells - 0.5).remainder(1) - 0.5).abs().max() < 0.4999
    assert torch.autograd.gradcheck(
        lambda v, x, w: deformable_sample(v, SHAPES, x, w, [1, 2, 1]), (value, locations, weights), eps=1e-7, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_values_are_sampled_at_exact_positions(dtype: torch.dtype) -> None:
    value, locations, weights = case([2, 2, 2], torch.float32)
    exact = deformable_sample(value.to(dtype).float(), SHAPES, locations, weights)
    got = deformable_sample(value.to(dtype), SHAPES, locations, weights)
    assert got.dtype is dtype
    assert torch.equal(got, exact.to(dtype))


def test_start_values() -> None:
    module = MSDeformAttn(16, levels=2, heads=4, points=[1, 3])
    assert module.sampling_offsets.weight.count_nonzero() == module.attention_weights.weight.count_nonzero() == 0
    bias = module.sampling_offsets.bias.view(4, 4, 2)  # head, point of both levels, x y
    rays = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    torch.testing.assert_close(bias, rays[:, None] * torch.tensor([1.0, 1, 2, 3])[:, None], atol=1e-6, rtol=0)
    diagonal = MSDeformAttn(8, levels=1, heads=8, points=1).sampling_offsets.bias.view(8, 2)
    torch.testing.assert_close(diagonal[1], torch.ones(2))


def test_reach_of_offsets() -> None:
    """An offset as large as the number of points of its level reaches half a box, for every level."""
    torch.manual_seed(0)
    module = MSDeformAttn(4, levels=2, heads=2, points=[2, 4])
    with torch.no_grad():
        module.sampling_offsets.bias.copy_(torch.tensor([2.0] * 4 + [4.0] * 8).repeat(2))
        for layer in (module.value_proj, module.output_proj):
            layer.weight.copy_(torch.eye(4))
    shapes = [(8, 8), (4, 4)]
    memory = torch.cat([torch.linspace(0, 1, h * w)[None, :, None].expand(1, -1, 4) for h, w in shapes], 1)
    box = torch.tensor([[[0.4, 0.5, 0.2, 0.1]]])
    corner = torch.tensor([0.5, 0.55]).expand(1, 1, 2, 6, 2)
    weights = torch.full((1, 1, 2, 6), 1 / 6)
    expected = deformable_sample(memory.view(1, -1, 2, 2), shapes, corner, weights, [2, 4])
    torch.testing.assert_close(module(torch.zeros(1, 1, 4), box, memory, shapes), expected)


def test_sizes_must_fit() -> None:
    with pytest.raises(ValueError, match="choose a divisor of 10"):
        MSDeformAttn(10, heads=4)
    with pytest.raises(ValueError, match="one for each of 3 levels"):
        MSDeformAttn(8, levels=3, points=[4, 4])
    with pytest.raises(ValueError, match=">= 1"):
        MSDeformAttn(8, levels=1, points=0)
