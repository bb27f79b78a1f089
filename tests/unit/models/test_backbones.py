"""Backbones: sizes, names, counts, and their blocks against a plain statement of the same arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyas.models.backbones import HGNETV2, Backbone, HGNetV2, ResNetVd
from eyas.models.backbones.hgnetv2 import HGBlock, Stem
from eyas.models.backbones.resnet_vd import BasicBlock, BottleneckBlock
from eyas.nn.frozen_norm import freeze_norms

# Parameters of the whole backbone (spec detr 1.1 and 2.1); with frozen norms their scales and shifts are not counted.
RESNETS = {18: 11_199_968, 34: 21_308_128}
FROZEN_RESNETS = {50: 23_474_016, 101: 42_413_920}
HGNETS = {"B0": 1_850_396, "B2": 6_026_626}
FROZEN_HGNETS = {"B4": 13_507_680, "B5": 33_231_840}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def build(name: int | str) -> Backbone:
    return ResNetVd(name) if isinstance(name, int) else HGNetV2(name)


def fill(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor values that matter, statistics included."""
    g = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=g) + 0.5)
        elif value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=g) / math.sqrt(max(value[0].numel(), 1)))
    return module.eval()


@pytest.mark.parametrize(("name", "parameters"), [*RESNETS.items(), *HGNETS.items()])
def test_parameters(name: int | str, parameters: int) -> None:
    with torch.device("meta"):
        assert count(build(name)) == parameters


@pytest.mark.parametrize(("name", "parameters"), [*FROZEN_RESNETS.items(), *FROZEN_HGNETS.items()])
def test_parameters_without_norms(name: int | str, parameters: int) -> None:
    with torch.device("meta"):
        backbone = build(name)
    freeze_norms(backbone)
    assert count(backbone) == parameters


@pytest.mark.parametrize(("name", "size"), [(18, (64, 96)), *((n, (33, 70)) for n in (18, 50, *HGNETV2))])
def test_levels_are_as_announced(name: int | str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone, image = build(name), torch.empty(2, 3, *size)
    maps = backbone(image)
    assert list(maps) == list(backbone.levels) == ["p2", "p3", "p4", "p5"]
    for level, (key, spec) in enumerate(backbone.levels.items(), 2):
        assert spec.stride == 2**level
        # Halving rounds up, level by level, which is the same as rounding up once.
        assert maps[key].shape == (2, spec.channels, *(-(-s // spec.stride) for s in size))


@pytest.mark.parametrize("name", [18, 50, 101, "B0", "B6"])
def test_parts_and_blocks_cover_every_parameter_once(name: int | str) -> None:
    with torch.device("meta"):
        backbone = build(name)
    for prefixes in ([p for part in backbone.parts.values() for p in part], [p for b in backbone.blocks for p in b]):
        assert all(sum(n.startswith(p) for p in prefixes) == 1 for n, _ in backbone.named_parameters())
        assert all(any(n.startswith(p) for n, _ in backbone.named_parameters()) for p in prefixes)


def test_channels_of_images() -> None:
    for backbone in (ResNetVd(18, ch=1), HGNetV2("B0", ch=1)):
        assert backbone.eval()(torch.rand(1, 1, 32, 32))["p5"].shape[-1] == 1


def test_stem_is_frozen_and_put_back() -> None:
    backbone = HGNetV2("B0")
    backbone.freeze_stem()
    assert all(p.requires_grad != n.startswith("stem.") for n, p in backbone.named_parameters())
    backbone.freeze_stem(False)
    assert all(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("name", [18, "B0", "B4"])
def test_signal_survives_random_weights(name: int | str) -> None:
    """In training mode, at the start, no level has died or exploded."""
    torch.manual_seed(0)
    maps = build(name).train()(torch.rand(2, 3, 64, 64))
    assert all(0.1 < float(m.detach().std()) < 100 for m in maps.values())


# -- against a plain statement ----------------------------------------------------------------------------------------
class Weights:
    """Reads convolutions with normalisation from a state dict by name, and applies them with functions alone."""

    def __init__(self, module: nn.Module, norm: str) -> None:
        self.state, self.norm = module.state_dict(), norm

    def __call__(self, x: Tensor, name: str, *, s: int = 1, act: bool = True, conv: str = "conv") -> Tensor:
        w = self.state[f"{name}.{conv}.weight"]
        k = w.shape[-1]
        if k % 2:
            x = F.pad(x, (k // 2,) * 4)
        y = F.conv2d(x, w, stride=s, groups=x.shape[1] // w.shape[1])
        mean, var, scale, shift = (
            self.state[f"{name}.{self.norm}.{p}"].view(-1, 1, 1)
            for p in ("running_mean", "running_var", "weight", "bias")
        )
        y = (y - mean) / (var + 1e-5).sqrt() * scale + shift
        if not act:
            return y
        y = y.clamp(min=0)
        lab = f"{name}.lab.scale"
        return y * self.state[lab] + self.state[f"{name}.lab.bias"] if lab in self.state else y


def mean_of_cells(x: Tensor) -> Tensor:
    """Average 2x2 cells by plain loops; cells at an odd border have fewer values, and are divided by as many."""
    b, c, h, w = x.shape
    y = torch.empty(b, c, -(-h // 2), -(-w // 2))
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            y[:, :, i, j] = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3))
    return y


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_vd_blocks(size: tuple[int, int]) -> None:
    x = torch.randn(2, 6, *size)
    basic = fill(BasicBlock(6, 4, 2, project=True))
    conv = Weights(basic, "norm")
    short = conv(mean_of_cells(x), "short.conv", act=False)
    expected = (conv(conv(x, "branch2a", s=2), "branch2b", act=False) + short).clamp(min=0)
    torch.testing.assert_close(basic(x), expected)

    bottleneck = fill(BottleneckBlock(6, 4, 2, project=True))
    conv = Weights(bottleneck, "norm")
    inner = conv(conv(conv(x, "branch2a"), "branch2b", s=2), "branch2c", act=False)
    expected = (inner + conv(mean_of_cells(x), "short.conv", act=False)).clamp(min=0)
    torch.testing.assert_close(bottleneck(x), expected)


def test_vd_blocks_without_stride() -> None:
    x = torch.randn(2, 6, 5, 7)
    first = fill(BasicBlock(6, 4, 1, project=True))  # the first block of the first stage projects without averaging
    conv = Weights(first, "norm")
    expected = conv(conv(x, "branch2a"), "branch2b", act=False) + conv(x, "short", act=False)
    torch.testing.assert_close(first(x), expected.clamp(min=0))
    later = fill(BottleneckBlock(16, 4, 1, project=False))
    x = torch.randn(2, 16, 5, 7)
    conv = Weights(later, "norm")
    expected = conv(conv(conv(x, "branch2a"), "branch2b"), "branch2c", act=False) + x
    torch.testing.assert_close(later(x), expected.clamp(min=0))


@pytest.mark.parametrize("lab", [False, True])
@pytest.mark.parametrize("size", [(8, 12), (9, 11)])
def test_hgnet_stem(lab: bool, size: tuple[int, int]) -> None:
    """Zeros are added at the right and the bottom only, before both 2x2 convolutions and before the pooling."""
    stem = fill(Stem(3, 8, 6, lab))
    conv = Weights(stem, "bn")
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        padded = F.pad(conv(x, "stem1", s=2), (0, 1, 0, 1))
        h, w = padded.shape[2] - 1, padded.shape[3] - 1
        corners = [padded[:, :, i : i + h, j : j + w] for i in (0, 1) for j in (0, 1)]
        pooled = torch.stack(corners).amax(0)
        inner = conv(padded, "stem2a", conv="conv.1")
        inner = conv(F.pad(inner, (0, 1, 0, 1)), "stem2b", conv="conv.1")
        expected = conv(conv(torch.cat((pooled, inner), 1), "stem3", s=2), "stem4")
        torch.testing.assert_close(stem(x), expected)


@pytest.mark.parametrize("lab", [False, True])
@pytest.mark.parametrize("light", [0, 3, 5])
def test_hgnet_block(light: int, lab: bool) -> None:
    """All outputs are joined, the input first; a light layer is 1x1 without activation, then a depth-wise one."""
    block = fill(HGBlock(6, 4, 6, 3, light=light, residual=True, lab=lab))
    conv = Weights(block, "bn")
    x = torch.randn(2, 6, 7, 5)
    with torch.no_grad():
        parts = [x]
        for i in range(3):
            name = f"layers.{i}"
            y = conv(conv(parts[-1], f"{name}.conv1", act=False), f"{name}.conv2") if light else conv(parts[-1], name)
            parts.append(y)
        y = conv(conv(torch.cat(parts, 1), "aggregation_squeeze_conv"), "aggregation_excitation_conv")
        torch.testing.assert_close(block(x), y + x)
        block.residual = False
        torch.testing.assert_close(block(x), y)
    name = "layers.0.conv2.conv.weight" if light else "layers.0.conv.weight"
    assert block.state_dict()[name].shape[-1] == (light or 3)


def test_downsampling_of_hgnet_has_no_activation() -> None:
    backbone = fill(HGNetV2("B0"))
    stage = backbone.stages[1]
    x = torch.randn(1, 64, 9, 7)
    with torch.no_grad():
        expected = Weights(stage, "bn")(x, "downsample", s=2, act=False)
        assert expected.min() < 0
        torch.testing.assert_close(stage.downsample(x), expected)


@pytest.mark.parametrize("name", [18, "B0"])
def test_folding_keeps_every_level(name: int | str) -> None:
    backbone = fill(build(name))
    x = torch.rand(1, 3, 50, 70)
    with torch.no_grad():
        before = backbone(x)
        for module in list(backbone.modules()):
            if module is not backbone and callable(getattr(module, "fuse", None)):
                module.fuse()
        after = backbone(x)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-4 * float(value.abs().max()))
