"""The blocks of the numbered RT-DETR tables: position code, attention, fusing, sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eyas.nn import AIFI, HGBlock, HGStem, LightConv, RepC3, RepConv, ResNetBlock, ResNetLayer, position_code


def test_position_code() -> None:
    code = position_code(2, 3, 8)[0]
    assert code.shape == (6, 8)
    assert code[0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert code[1].tolist() == pytest.approx([0, 0, 1, 1, 0.8415, 0.01, 0.5403, 0.9999], abs=1e-4)
    assert code[3].tolist() == pytest.approx([0.8415, 0.01, 0.5403, 0.9999, 0, 0, 1, 1], abs=1e-4)
    with pytest.raises(ValueError, match="multiple of 4"):
        position_code(2, 2, 6)


def test_aifi_is_a_post_norm_encoder_layer() -> None:
    torch.manual_seed(0)
    layer = AIFI(16, 32, 4).eval()
    reference = nn.TransformerEncoderLayer(16, 4, 32, dropout=0, activation="gelu", batch_first=True).eval()
    names = {"self_attn": "ma", "linear1": "fc1", "linear2": "fc2", "norm1": "norm1", "norm2": "norm2"}
    for theirs, ours in names.items():
        reference.get_submodule(theirs).load_state_dict(layer.get_submodule(ours).state_dict())
    # A lone token gets its own value, whatever its code says.
    x = torch.randn(2, 16, 1, 1)
    torch.testing.assert_close(layer(x).flatten(1), reference(x.flatten(2).transpose(1, 2)).flatten(1))
    x = torch.randn(2, 16, 2, 3)
    tokens = x.flatten(2).transpose(1, 2)
    coded = tokens + position_code(2, 3, 16)
    attended = reference.norm1(tokens + reference.self_attn(coded, coded, tokens)[0])
    expected = reference.norm2(attended + reference.linear2(nn.functional.gelu(reference.linear1(attended))))
    torch.testing.assert_close(layer(x), expected.transpose(1, 2).reshape(2, 16, 2, 3))
    with pytest.raises(ValueError, match="choose a divisor of 16"):
        AIFI(16, 32, 3)


def randomise(module: nn.Module) -> None:
    """Give normalisations statistics and scales that fusing must not lose."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for tensor in (m.weight.data, m.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (m.bias.data, m.running_mean):
                tensor.normal_(0, 0.3)


def test_rep_conv_fuses_into_one_convolution() -> None:
    torch.manual_seed(0)
    layer = RepConv(4, 6).eval()
    randomise(layer)
    x = torch.randn(2, 4, 5, 7)
    with torch.no_grad():
        expected = layer(x)
        for _ in range(2):  # the second time does nothing
            layer.fuse()
            torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    assert list(layer.state_dict()) == ["conv.weight", "conv.bias"]


def test_sizes() -> None:
    x = torch.randn(2, 3, 64, 96)
    assert HGStem(3, 8, 12)(x).shape == (2, 12, 16, 24)
    assert ResNetLayer(3, 8, is_first=True)(x).shape == (2, 8, 16, 24)
    x = torch.randn(2, 8, 7, 9)
    assert LightConv(8, 12, 5)(x).shape == (2, 12, 7, 9)
    assert HGBlock(8, 4, 16, 5, n=3, light=True)(x).shape == (2, 16, 7, 9)
    assert ResNetLayer(8, 4, 2, n=2)(x).shape == (2, 16, 4, 5)
    assert RepC3(8, 12, n=2)(x).shape == RepC3(8, 12, n=1, e=0.5)(x).shape == (2, 12, 7, 9)
    assert isinstance(RepC3(8, 12).cv3, nn.Identity)


def test_shortcuts() -> None:
    assert HGBlock(8, 4, 8, shortcut=True).add
    assert not HGBlock(8, 4, 16, shortcut=True).add
    assert isinstance(ResNetBlock(16, 4).shortcut, nn.Identity)
    assert "shortcut.0.conv.weight" in ResNetBlock(16, 4, 2).state_dict()
    x = torch.randn(1, 8, 4, 4)
    block = HGBlock(8, 4, 8, n=2, shortcut=True).eval()
    plain = HGBlock(8, 4, 8, n=2).eval()
    plain.load_state_dict(block.state_dict())
    torch.testing.assert_close(block(x), plain(x) + x)
