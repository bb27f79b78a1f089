"""The hybrid encoder: names, shapes at any size, and its arithmetic against a plain statement."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyas.models.encoders import HybridEncoder
from eyas.models.encoders.hybrid import CSPRep, EncoderLayer, RepVGG
from eyas.nn.conv import Fusable


def fill(module: nn.Module, seed: int = 0) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=g) + 0.5)
        elif value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=g) / math.sqrt(max(value[0].numel(), 1)))
    return module.eval()


def conv(state: dict[str, Tensor], name: str, x: Tensor, *, s: int = 1, act: bool = True) -> Tensor:
    w = state[f"{name}.conv.weight"]
    y = F.conv2d(x, w, stride=s, padding=w.shape[-1] // 2)
    mean, var, scale, shift = (
        state[f"{name}.norm.{p}"].view(-1, 1, 1) for p in ("running_mean", "running_var", "weight", "bias")
    )
    y = (y - mean) / (var + 1e-5).sqrt() * scale + shift
    return y * y.sigmoid() if act else y


def fusion(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    y, i = conv(state, f"{name}.conv1", x), 0
    while f"{name}.bottlenecks.{i}.conv1.conv.weight" in state:
        part = f"{name}.bottlenecks.{i}"
        y = conv(state, f"{part}.conv1", y, act=False) + conv(state, f"{part}.conv2", y, act=False)
        y, i = y * y.sigmoid(), i + 1
    assert i == 3
    y = y + conv(state, f"{name}.conv2", x)
    return conv(state, f"{name}.conv3", y) if f"{name}.conv3.conv.weight" in state else y


def attention(state: dict[str, Tensor], name: str, x: Tensor, heads: int) -> Tensor:
    """Attend within one image, token by token and head by head, then the feed-forward part."""
    c, h, w = x.shape
    quarter, width = c // 4, c // heads
    code = torch.empty(h * w, c)
    for y in range(h):
        for column in range(w):
            for i in range(quarter):
                rate = 10000 ** (-i / quarter)
                values = math.sin(y * rate), math.cos(y * rate), math.sin(column * rate), math.cos(column * rate)
                for block, value in enumerate(values):
                    code[y * w + column, block * quarter + i] = value
    tokens = x.reshape(c, -1).T
    projection, bias = state[f"{name}.self_attn.in_proj_weight"], state[f"{name}.self_attn.in_proj_bias"]
    where = tokens + code
    q, k, v = (
        source @ projection[j * c : (j + 1) * c].T + bias[j * c : (j + 1) * c]
        for j, source in enumerate((where, where, tokens))
    )
    mixed = torch.cat(
        [
            ((q[:, part] @ k[:, part].T) / math.sqrt(width)).softmax(-1) @ v[:, part]
            for part in (slice(a * width, (a + 1) * width) for a in range(heads))
        ],
        1,
    )
    mixed = mixed @ state[f"{name}.self_attn.out_proj.weight"].T + state[f"{name}.self_attn.out_proj.bias"]
    tokens = normalised(state, f"{name}.norm1", tokens + mixed)
    inner = tokens @ state[f"{name}.linear1.weight"].T + state[f"{name}.linear1.bias"]
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    out = tokens + inner @ state[f"{name}.linear2.weight"].T + state[f"{name}.linear2.bias"]
    return normalised(state, f"{name}.norm2", out).T.reshape(c, h, w)


def normalised(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def expected_maps(state: dict[str, Tensor], maps: list[Tensor], heads: int) -> list[Tensor]:
    """What spec detr 1.4 says, for three levels."""
    c3, c4, c5 = (conv(state, f"input_proj.{i}", x, act=False) for i, x in enumerate(maps))
    c5 = torch.stack([attention(state, "encoder.0.layers.0", image, heads) for image in c5])

    def twice(x: Tensor, like: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, : like.shape[2], : like.shape[3]]

    top = conv(state, "lateral_convs.0", c5)
    middle = fusion(state, "fpn_blocks.0", torch.cat((twice(top, c4), c4), 1))
    middle = conv(state, "lateral_convs.1", middle)
    p3 = fusion(state, "fpn_blocks.1", torch.cat((twice(middle, c3), c3), 1))
    p4 = fusion(state, "pan_blocks.0", torch.cat((conv(state, "downsample_convs.0", p3, s=2), middle), 1))
    p5 = fusion(state, "pan_blocks.1", torch.cat((conv(state, "downsample_convs.1", p4, s=2), top), 1))
    return [p3, p4, p5]


@pytest.mark.parametrize("expansion", [0.5, 1.0])
@pytest.mark.parametrize("size", [(8, 12), (4, 4)])
def test_against_a_plain_statement(expansion: float, size: tuple[int, int]) -> None:
    encoder = fill(HybridEncoder((5, 6, 7), hidden=8, ffn=10, heads=2, expansion=expansion))
    maps = [torch.randn(2, c, size[0] >> i, size[1] >> i) for i, c in enumerate((5, 6, 7))]
    with torch.no_grad():
        for got, expected in zip(encoder(maps), expected_maps(encoder.state_dict(), maps, 2), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_depth_and_layers() -> None:
    encoder = HybridEncoder((5, 6, 7), hidden=8, ffn=10, heads=2, layers=2, depth_mult=0.34)
    assert len(encoder.encoder[0].layers) == 2
    assert all(len(block.bottlenecks) == 1 for block in (*encoder.fpn_blocks, *encoder.pan_blocks))
    assert encoder.channels == (8, 8, 8)


@pytest.mark.parametrize("size", [(20, 20), (13, 9), (17, 22), (1, 1)])
def test_maps_of_odd_sizes_keep_their_size(size: tuple[int, int]) -> None:
    """A backbone rounds up when it halves, so the smaller of two maps may have no exact double."""
    encoder = fill(HybridEncoder((3, 3, 3), hidden=8, ffn=8, heads=2))
    maps = [torch.randn(1, 3, *(-(-s // 2**i) for s in size)) for i in range(3)]
    assert [m.shape[-2:] for m in encoder(maps)] == [m.shape[-2:] for m in maps]


def test_other_numbers_of_levels() -> None:
    encoder = fill(HybridEncoder((3, 4), hidden=8, ffn=8, heads=2))
    out = encoder([torch.randn(1, 3, 6, 6), torch.randn(1, 4, 3, 3)])
    assert [tuple(m.shape) for m in out] == [(1, 8, 6, 6), (1, 8, 3, 3)]


def test_folding_keeps_the_output() -> None:
    encoder = fill(HybridEncoder((3, 4, 5), hidden=8, ffn=8, heads=2, expansion=0.5))
    maps = [torch.randn(1, 3 + i, 8 >> i, 8 >> i) for i in range(3)]
    with torch.no_grad():
        before = encoder(maps)
        for _ in range(2):
            for module in encoder.modules():
                if isinstance(module, Fusable):
                    module.fuse()
        for got, expected in zip(encoder(maps), before, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules())
    reps = [m for m in encoder.modules() if isinstance(m, RepVGG)]
    assert len(reps) == 12 and all(r.conv1 is None and r.conv is not None for r in reps)


def test_gradients_reach_every_parameter() -> None:
    encoder = HybridEncoder((3, 4, 5), hidden=8, ffn=8, heads=2)
    maps = [torch.randn(2, 3 + i, 8 >> i, 8 >> i) for i in range(3)]
    sum(m.square().sum() for m in encoder(maps)).backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_parts_alone() -> None:
    assert isinstance(CSPRep(4, 6, 6, 1).conv3, nn.Identity)
    assert EncoderLayer(8, 2, 16)(torch.randn(2, 5, 8), torch.zeros(1, 5, 8)).shape == (2, 5, 8)
