"""Normalisation: how fast its running statistics follow."""

import torch
from torch import nn

from eyas.nn.norms import GrowingStatistics, StatisticsBeside


def test_statistics_look_back_over_a_share_of_a_short_run_and_over_their_own_window_in_a_long_one() -> None:
    layer = nn.BatchNorm1d(2, momentum=0.03)
    plain = nn.BatchNorm1d(2, momentum=None)  # averages over all steps already
    growing = GrowingStatistics(nn.Sequential(layer, plain))
    means = torch.linspace(0, 6, 30).cos()
    for step, mean in enumerate(means):
        growing.follow(step)
        layer(mean + torch.tensor([[-1.0, -2.0], [1.0, 2.0]]))
    k = torch.arange(1, 31)
    parts = (k**6 - (k - 1) ** 6) / 30**6
    torch.testing.assert_close(layer.running_mean, (parts * means).sum().expand(2))  # nothing of the start is left
    growing.follow(10_000)
    assert layer.momentum == 0.03 and plain.momentum is None


def test_statistics_beside_the_layers_are_those_that_the_layers_would_have() -> None:
    def norms() -> nn.Sequential:
        return nn.Sequential(nn.BatchNorm1d(2, momentum=0.03), nn.BatchNorm1d(2, momentum=0.1), nn.BatchNorm1d(2))

    inside, outside = norms().double(), norms().double()
    growing, beside = GrowingStatistics(inside), StatisticsBeside(outside)
    inside[2].eval(), outside[2].eval()  # a held one stands still
    generator = torch.Generator().manual_seed(0)
    for step in range(300):
        x = torch.randn(8, 2, generator=generator, dtype=torch.float64) + step / 100
        growing.follow(step), beside.follow(step)
        inside(x), outside(x)
        growing.settle(), beside.settle()
        if step in (0, 5, 50, 299):
            for name, statistic in inside.named_buffers():
                torch.testing.assert_close(dict(outside.named_buffers())[name], statistic)
    assert {layer.momentum for layer in outside} == {1.0}
    beside.release()
    assert [layer.momentum for layer in outside] == [0.03, 0.1, 0.1]


def test_a_short_run_gives_the_layers_their_own_momentum_back() -> None:
    layer = nn.BatchNorm1d(2, momentum=0.03)
    growing = GrowingStatistics(layer)
    growing.follow(3)
    assert layer.momentum > 0.03
    growing.release()
    assert layer.momentum == 0.03
