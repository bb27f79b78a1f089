"""Normalisation: how fast its running statistics follow."""

import torch
from torch import nn

from eyas.nn.norms import GrowingStatistics


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
