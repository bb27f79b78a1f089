"""Blocks: shapes, parameter names, memory format, and formulas written out a second time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eyas.nn import C2PSA, SPPF, Attention, Bottleneck, C3k, C3k2, Concat, Conv, DWConv, PSABlock, Upsample

BLOCKS = {
    "conv": (lambda: Conv(8, 12, 3), 12),
    "dwconv": (lambda: DWConv(8, 8, 3), 8),
    "bottleneck": (lambda: Bottleneck(8, 8), 8),
    "c3k": (lambda: C3k(8, 16, 2), 16),
    "c3k2": (lambda: C3k2(8, 16, 2), 16),
    "c3k2-c3k": (lambda: C3k2(8, 16, 1, True), 16),
    "c3k2-attn": (lambda: C3k2(8, 16, 1, True, 0.5, True), 16),
    "sppf": (lambda: SPPF(8, 8, 5, 3, True), 8),
    "psa": (lambda: PSABlock(8, 0.5, 2), 8),
    "c2psa": (lambda: C2PSA(8, 8, 2), 8),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_shape_gradient_and_channels_last(name: str) -> None:
    make, width = BLOCKS[name]
    torch.manual_seed(0)
    block = make().eval()
    x = torch.randn(2, 8, 6, 10)
    y = block(x)
    assert y.shape == (2, width, 6, 10)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())
    packed = block.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(packed, y, atol=1e-5, rtol=1e-5)
    assert packed.is_contiguous(memory_format=torch.channels_last), "a block fell back to the slow layout"


def test_attention_equals_the_textbook_sum() -> None:
    torch.manual_seed(0)
    dim, heads, h, w = 8, 2, 2, 3
    layer = Attention(dim, heads, 0.5).eval()
    x = torch.randn(1, dim, h, w)
    qkv = layer.qkv(x).view(heads, -1, h * w)
    k_dim, d = layer.key_dim, layer.head_dim
    out = torch.zeros(heads, d, h * w)
    for head in range(heads):
        q, k, v = qkv[head].split((k_dim, k_dim, d))
        for i in range(h * w):
            weights = torch.stack([(q[:, i] * k[:, j]).sum() / k_dim**0.5 for j in range(h * w)]).softmax(0)
            out[head, :, i] = (v * weights).sum(1)
    values = qkv[:, 2 * k_dim :].reshape(1, dim, h, w)
    torch.testing.assert_close(layer(x), layer.proj(out.reshape(1, dim, h, w) + layer.pe(values)), atol=1e-6, rtol=1e-5)


def test_sppf_first_convolution_is_linear_unless_asked() -> None:
    assert isinstance(SPPF(8, 8).cv1.act, nn.Identity)
    assert isinstance(SPPF(8, 8, act=True).cv1.act, nn.SiLU)


def test_fusing_keeps_the_function() -> None:
    torch.manual_seed(0)
    conv = Conv(4, 6, 3).train()
    for _ in range(5):
        conv(torch.randn(8, 4, 5, 5) * 2 + 1)
    conv.eval()
    x = torch.randn(2, 4, 5, 5)
    expected = conv(x)
    conv.fuse()
    conv.fuse()  # twice is once
    torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=1e-5)
    assert sorted(conv.state_dict()) == ["conv.bias", "conv.weight"]


def test_small_parts() -> None:
    x = torch.arange(4.0).view(1, 1, 2, 2)
    assert Upsample()(x)[0, 0, 0].tolist() == [0, 0, 1, 1]
    assert Concat()([x, x]).shape == (1, 2, 2, 2)
    assert DWConv(6, 4, 3).conv.groups == 2
    assert Conv(3, 4, 3, d=2).conv.padding == (2, 2)
    with pytest.raises(ValueError, match="keeps its width"):
        C2PSA(8, 16)
