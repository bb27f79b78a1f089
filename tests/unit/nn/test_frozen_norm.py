"""Normalisation with constant statistics, and folding of conv and norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eyas.nn.conv_norm import ConvNorm
from eyas.nn.frozen_norm import FrozenBatchNorm2d, freeze_norms


def randomised(norm: nn.Module) -> nn.Module:
    g = torch.Generator().manual_seed(0)
    for name, value in norm.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=g) + (0.5 if name.endswith(("weight", "var")) else -0.5))
    return norm


def test_formula() -> None:
    norm = randomised(FrozenBatchNorm2d(3))
    x = torch.randn(2, 3, 4, 5)
    c = (1, 3, 1, 1)
    expected = (x - norm.running_mean.view(c)) / (norm.running_var.view(c) + 1e-5).sqrt()
    expected = expected * norm.weight.view(c) + norm.bias.view(c)
    torch.testing.assert_close(norm(x), expected)


def test_training_changes_nothing_but_lets_gradients_through() -> None:
    norm = randomised(FrozenBatchNorm2d(3)).train()
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    norm(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert not list(norm.parameters())
    assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())


def test_state_of_an_ordinary_norm_fits() -> None:
    ordinary, frozen = randomised(nn.BatchNorm2d(3)).eval(), FrozenBatchNorm2d(3)
    frozen.load_state_dict(ordinary.state_dict())
    x = torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(frozen(x), ordinary(x))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_every_layer_is_replaced(device: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), nn.BatchNorm2d(4)).to(device)
    ordinary = set(net.state_dict())
    assert freeze_norms(net) == 2
    assert set(net.state_dict()) == {k for k in ordinary if not k.endswith("num_batches_tracked")}
    assert {p.device.type for p in net.state_dict().values()} == {device}
    assert sum(1 for _ in net.parameters()) == 2
    assert [type(module) for module in (net[1][0], net[2])] == [FrozenBatchNorm2d] * 2


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_freezing_keeps_the_output_and_the_mode(eps: float) -> None:
    net = nn.Sequential(randomised(nn.BatchNorm2d(3, eps=eps))).eval()
    x = torch.randn(2, 3, 4, 4)
    before = net(x)
    freeze_norms(net)
    torch.testing.assert_close(net(x), before)
    assert not any(module.training for module in net.modules())


@pytest.mark.parametrize("frozen", [False, True])
def test_folding_keeps_the_output(frozen: bool) -> None:
    layer = ConvNorm(3, 5, 3, 2, nn.SiLU()).eval()
    randomised(layer.norm)
    if frozen:
        freeze_norms(layer)
    x = torch.randn(2, 3, 7, 9)
    with torch.no_grad():
        before = layer(x)
        layer.fuse()
        layer.fuse()  # the second time does nothing
        torch.testing.assert_close(layer(x), before)
    assert layer.conv.bias is not None
    assert isinstance(layer.norm, nn.Identity)
