"""Layers of vision transformers against torch's own, closed forms and properties."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from eyas.nn.vit import Attention, Block, LayerScale, Mlp, QuickGELU, Rotary, SwiGLU, resized_positions, turned
from eyas.optim import parameter_groups


def test_a_block_is_torchs_pre_norm_encoder_layer() -> None:
    torch.manual_seed(0)
    block = Block(48, 3, Mlp(48, 96, nn.GELU()), 1e-5, bias=True, scale=None).eval()
    other = nn.TransformerEncoderLayer(
        48, 3, 96, dropout=0.0, activation="gelu", batch_first=True, norm_first=True, layer_norm_eps=1e-5
    ).train()
    pairs = {
        "self_attn.in_proj_weight": block.attn.qkv.weight, "self_attn.in_proj_bias": block.attn.qkv.bias,
        "self_attn.out_proj.weight": block.attn.proj.weight, "self_attn.out_proj.bias": block.attn.proj.bias,
        "linear1.weight": block.mlp.fc1.weight, "linear1.bias": block.mlp.fc1.bias,
        "linear2.weight": block.mlp.fc2.weight, "linear2.bias": block.mlp.fc2.bias,
    }  # fmt: skip
    with torch.no_grad():
        for name in ("norm1", "norm2"):
            own = block.get_submodule(name)
            for kind in ("weight", "bias"):
                own.get_parameter(kind).normal_()
                pairs[f"{name}.{kind}"] = own.get_parameter(kind)
        other.load_state_dict({name: p.detach() for name, p in pairs.items()})
    x = torch.randn(2, 7, 48)
    assert torch.allclose(block(x), other(x), atol=1e-5)


def test_layer_scale_multiplies_what_is_added() -> None:
    torch.manual_seed(0)
    block = Block(16, 2, SwiGLU(16, 8), 1e-6, bias=False, scale=0.0)
    x = torch.randn(1, 3, 16)
    assert torch.equal(block(x), x)
    assert torch.equal(LayerScale(16, 0.5)(x), x / 2)


def test_gated_part_and_quick_activation_as_written_down() -> None:
    torch.manual_seed(0)
    part, x = SwiGLU(6, 4), torch.randn(5, 6)
    a, b = (x @ part.w12.weight.T + part.w12.bias).split(4, -1)
    assert torch.allclose(part(x), (a / (1 + (-a).exp()) * b) @ part.w3.weight.T + part.w3.bias, atol=1e-6)
    assert float(QuickGELU()(torch.tensor(1.0))) == pytest.approx(1 / (1 + math.exp(-1.702)))


def test_turned_positions_tell_distances_only() -> None:
    """The product of a query and a key depends on how far apart they are, not on where; tokens are not turned."""
    torch.manual_seed(0)
    turn = Rotary(64)(4, 4)
    q, k = torch.randn(2, 64)
    rows = [turned(v.expand(1, 1, 18, 64), turn)[0, 0] for v in (q, k)]
    assert torch.equal(rows[0][:2], q.expand(2, 64))
    products = (rows[0][2:] @ rows[1][2:].T).view(4, 4, 4, 4)
    assert torch.allclose(products[0, 0, 1, 2], products[2, 1, 3, 3], atol=1e-4)
    assert not torch.allclose(products[0, 0, 1, 2], products[0, 0, 2, 1], atol=1e-2)
    # The centre of the first of four rows is at -3/4; the shortest period is 1, the next 100^(1/16).
    assert torch.allclose(
        turn[0, 0, :2], torch.tensor([-1.5 * math.pi, -1.5 * math.pi / 100 ** (1 / 16)]).cos(), atol=1e-5
    )


def test_position_codes_of_other_sizes() -> None:
    torch.manual_seed(0)
    column = torch.randn(6)
    code = torch.cat((torch.tensor([7.0]), column.repeat_interleave(6))).view(1, 37, 1)
    assert resized_positions(code, 6, 6) is code
    larger = resized_positions(code, 12, 6)
    assert larger.shape == (1, 1 + 72, 1) and float(larger[0, 0]) == 7.0
    rows = larger[0, 1:, 0].view(12, 6)
    for i in range(12):  # half-pixel centres put row i at (i + .5) / 2 - .5; beyond the edge, its last value goes on
        place = (i + 0.5) / 2 - 0.5
        near = [math.floor(place) + k for k in (-1, 0, 1, 2)]
        wanted = sum(float(column[min(max(k, 0), 5)]) * cubic(place - k) for k in near)
        assert torch.allclose(rows[i], torch.tensor(wanted), atol=1e-5)


def cubic(x: float, a: float = -0.75) -> float:
    """Return Keys' cubic convolution kernel."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def test_what_is_no_matrix_takes_no_weight_decay() -> None:
    groups = parameter_groups(Block(16, 2, Mlp(16, 32, nn.GELU()), 1e-6, bias=True, scale=0.1), lr=1.0, decay=0.1)
    kept = {group["name"]: len(group["params"]) for group in groups if group["weight_decay"]}
    assert kept == {"weight": 4}
    assert Attention(16, 2, bias=False).qkv.bias is None
