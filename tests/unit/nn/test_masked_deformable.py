"""Deformable attention with a reference for each level and with padding; sine codes of boxes and of maps."""

from __future__ import annotations

import pytest
import torch

from eyas.nn import MSDeformAttn
from eyas.nn.masked_deformable import MaskedDeformAttn
from eyas.nn.waves import box_code, map_code

SHAPES = [(4, 6), (2, 3)]
CELLS = 4 * 6 + 2 * 3


def attention(dtype: torch.dtype = torch.float64) -> MaskedDeformAttn:
    """A small one whose offsets and weights depend on the query."""
    torch.manual_seed(0)
    made = MaskedDeformAttn(8, levels=2, heads=2, points=2).to(dtype)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def inputs(last: int, queries: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    query, memory = (torch.randn(2, n, 8, generator=g, dtype=torch.float64) for n in (queries, CELLS))
    return query, torch.rand(2, queries, 2, last, generator=g, dtype=torch.float64) * 0.5 + 0.25, memory


def test_boxes_that_are_alike_on_all_levels_give_what_the_plain_layer_gives() -> None:
    made, (query, boxes, memory) = attention(), inputs(4)
    plain = MSDeformAttn(8, levels=2, heads=2, points=2).double()
    plain.load_state_dict(made.state_dict())
    same = boxes[:, :, :1].expand_as(boxes)
    torch.testing.assert_close(made(query, same, memory, SHAPES), plain(query, same[:, :, 0], memory, SHAPES))


@pytest.mark.parametrize("last", [2, 4])
def test_gradients_are_those_of_finite_differences(last: int) -> None:
    made, (query, boxes, memory) = attention(), inputs(last, queries=2)
    padded = torch.zeros(2, CELLS, dtype=torch.bool)
    padded[1, 5:9] = True
    given = [x.requires_grad_() for x in (query, boxes, memory)]
    assert torch.autograd.gradcheck(lambda q, b, m: made(q, b, m, SHAPES, padded), given, atol=1e-6)


def test_an_offset_is_a_cell_where_references_are_points() -> None:
    """One head and one point: what is sampled is the middle of a cell, and the offset moves it by whole cells."""
    made = MaskedDeformAttn(4, levels=2, heads=1, points=1).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        for layer in (made.value_proj, made.output_proj):
            layer.weight.copy_(torch.eye(4))
        made.sampling_offsets.bias.copy_(torch.tensor([2.0, -1.0, 1.0, 1.0]))  # two to the right, one up; one each
    memory = torch.randn(1, CELLS, 4, dtype=torch.float64)
    points = torch.tensor([[[[1.5 / 6, 2.5 / 4], [0.5 / 3, 0.5 / 2]]]], dtype=torch.float64)
    first, second = memory[0, 1 * 6 + 3], memory[0, 24 + 1 * 3 + 1]
    torch.testing.assert_close(made(memory[:, :1], points, memory, SHAPES)[0, 0], (first + second) / 2)
    hidden = torch.zeros(1, CELLS, dtype=torch.bool)
    hidden[0, 1 * 6 + 3] = True
    torch.testing.assert_close(made(memory[:, :1], points, memory, SHAPES, hidden)[0, 0], second / 2)


def test_padding_counts_as_the_outside_of_a_map() -> None:
    """Cells that are not seen are zero, whatever the bias of the projection is."""
    made, (query, boxes, memory) = attention(), inputs(4)
    padded = torch.rand(2, CELLS, generator=torch.Generator().manual_seed(3)) < 0.4
    junk = torch.where(padded[..., None], torch.randn_like(memory) * 1e3, memory)
    seen = made(query, boxes, memory, SHAPES, padded)
    torch.testing.assert_close(made(query, boxes, junk, SHAPES, padded), seen)
    assert not torch.allclose(made(query, boxes, memory, SHAPES), seen)


# Numbers of spec detr-more 2.3.
def test_code_of_a_box() -> None:
    code = box_code(torch.tensor([[[0.3, 0.6, 0.2, 0.1]]]), 128)[0, 0]
    expected = {
        0: [-0.58779, -0.80902, -0.12271, -0.99244],
        128: [0.95106, -0.30902, 0.99811, -0.06147],
        256: [0.95106, 0.30902, 0.88579, 0.46408],
        384: [0.58779, 0.80902, 0.51765, 0.85559],
    }
    for start, values in expected.items():
        assert code[start : start + 4].tolist() == pytest.approx(values, abs=2e-5)
    assert float(code.double().sum()) == pytest.approx(267.95830, abs=1e-3)


@pytest.mark.parametrize(
    ("temperature", "offset", "rows", "columns", "total"),
    [
        (20.0, 0.0, [0, -1, 0.14317, -0.98970], [0.86603, -0.5, 0.90987, -0.41489], 623.6013),
        (10_000.0, -0.5, [1, 0, 0.97792, 0.20899], [0.86603, 0.5, 0.78756, 0.61624], 764.6042),
    ],
)
def test_code_of_a_map(
    temperature: float, offset: float, rows: list[float], columns: list[float], total: float
) -> None:
    seen = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)
    code = map_code(*seen, 256, temperature=temperature, offset=offset)[0]
    assert code[0, :4].tolist() == pytest.approx(rows, abs=2e-5)
    assert code[0, 128:132].tolist() == pytest.approx(columns, abs=2e-5)
    assert float(code.double().sum()) == pytest.approx(total, abs=1e-3)


def test_lines_of_padding_are_not_counted_in_the_code_of_a_map() -> None:
    small = map_code(torch.ones(1, 2) > 0, torch.ones(1, 3) > 0, 16, temperature=20.0).view(2, 3, 16)
    rows, columns = torch.tensor([[False, True, True, False]]), torch.tensor([[True, True, True, False, False]])
    large = map_code(rows, columns, 16, temperature=20.0).view(4, 5, 16)
    torch.testing.assert_close(large[1:3, :3], small)
