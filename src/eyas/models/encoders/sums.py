"""The encoders of DEIMv2: maps are added where others are joined, and the smallest members attend nowhere (detr 4.3).

Legend: ``B`` images, ``D`` hidden width. Sub-module names are state-dict keys.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate

from eyas.models.encoders.elan import ELAN4, ELANEncoder
from eyas.models.encoders.hybrid import REPEATS, RepVGG
from eyas.nn.conv_norm import ConvNorm
from eyas.nn.recomputed import Recomputed


class MergedCSP(Recomputed):
    """Halves of one projection, the second through ``n`` RepVGG units, summed: (B, c1, H, W) -> (B, c2, H, W)."""

    def __init__(self, c1: int, c2: int, n: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(c1, 2 * c2, act=nn.SiLU())
        self.bottlenecks = nn.Sequential(*(RepVGG(c2) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, c1, H, W) to (B, c2, H, W)."""
        past, through = self.conv1(x).chunk(2, 1)
        return past + self.bottlenecks(through)


class MergedELAN4(ELAN4):
    """`ELAN4` whose steps begin with a `MergedCSP`."""

    @staticmethod
    def step(c1: int, c2: int, units: int) -> nn.Sequential:
        """Return one step: (B, c1, H, W) -> (B, c2, H, W)."""
        return nn.Sequential(MergedCSP(c1, c2, units), ConvNorm(c2, c2, 3, act=nn.SiLU()))


class ELAN5(ELAN4):
    """`ELAN4` whose steps are a `MergedCSP` and nothing else."""

    @staticmethod
    def step(c1: int, c2: int, units: int) -> nn.Sequential:
        """Return one step: (B, c1, H, W) -> (B, c2, H, W)."""
        return nn.Sequential(MergedCSP(c1, c2, units))


def sum_block(block: type[ELAN4], hidden: int, expansion: float, units: int) -> ELAN4:
    """Return a block for a sum of maps: (B, D, H, W) -> (B, D, H, W); its halves are as wide as such a map each."""
    return block(hidden, hidden, int(expansion * hidden / 2), units, wide=2 * hidden)


class SumEncoder(ELANEncoder):
    """`ELANEncoder` that adds maps, and takes those that have its width as they are."""

    def projection(self, c: int, hidden: int) -> nn.Module:
        """Return what brings a map of ``c`` channels to the common width: nothing if it has it."""
        return nn.Identity() if c == hidden else super().projection(c, hidden)

    def fusion(self, hidden: int, expansion: float, units: int) -> nn.Module:
        """Return a block that mixes two maps, added: (B, D, H, W) -> (B, D, H, W)."""
        return sum_block(ELAN5, hidden, expansion, units)

    def join(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the sum of two maps (B, D, H, W)."""
        return one + other


class SmallSumEncoder(SumEncoder):
    """`SumEncoder` with the blocks of the size below."""

    def fusion(self, hidden: int, expansion: float, units: int) -> nn.Module:
        """Return a block that mixes two maps, added: (B, D, H, W) -> (B, D, H, W)."""
        return sum_block(MergedELAN4, hidden, expansion, units)


class OfTheWhole(nn.Module):
    """Add to every cell the mean of all, and project: (B, D, H, W) -> (B, D, H, W)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.cv = ConvNorm(hidden, hidden, act=nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, H, W) to (B, D, H, W)."""
        return self.cv(x + x.mean((2, 3), keepdim=True))


def halved(hidden: int) -> nn.Sequential:
    """Return what averages and projects a map: (B, D, H, W) -> (B, D, ceil(H/2), ceil(W/2))."""
    return nn.Sequential(nn.AvgPool2d(3, 2, 1), ConvNorm(hidden, hidden, act=nn.SiLU()))


class LiteEncoder(nn.Module):
    """Two maps out of one, which tell each other what they know: for detectors of a million parameters.

    Args:
        c: channels of the map that comes in.
        hidden: D, channels of the maps that leave.
        expansion: inner width of the blocks as a share of D / 2.
        depth_mult: factor of the RepVGG units in each step of a block, 3 at 1.
    """

    def __init__(self, c: int, *, hidden: int, expansion: float, depth_mult: float) -> None:
        super().__init__()
        units = round(REPEATS * depth_mult)
        self.channels = (hidden, hidden)
        self.input_proj = nn.ModuleList([ConvNorm(c, hidden)])
        self.down_sample1 = halved(hidden)
        self.down_sample2 = halved(hidden)
        self.bi_fusion = OfTheWhole(hidden)
        self.fpn_block = sum_block(MergedELAN4, hidden, expansion, units)
        self.pan_block = sum_block(MergedELAN4, hidden, expansion, units)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map [(B, c, H, W)] to [(B, D, H, W), (B, D, ceil(H/2), ceil(W/2))]."""
        large = self.input_proj[0](maps[0])
        small = self.bi_fusion(self.down_sample1(large))
        large = self.fpn_block(large + interpolate(small, size=large.shape[-2:], mode="nearest"))
        return [large, self.pan_block(small + self.down_sample2(large))]
