"""A batch of one image whose coarsest level is a single cell cannot be normalised: said before training."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from eyas.augment.multiscale import batch_size_px, smallest_px
from eyas.data.sampler import EpochOrder, TrainBatchSampler, smallest_share
from eyas.models import DetectionModel
from eyas.train.checks import refuse_single_values


@pytest.mark.parametrize(
    ("n", "batch", "world", "smallest"),
    [
        (16, 8, 1, 8),
        (17, 8, 1, 1),
        (18, 8, 2, 1),
        (20, 8, 2, 2),
        (19, 8, 3, 1),
        (3, 8, 1, 3),
        (9, 1, 1, 1),
        (8, 7, 3, 1),
    ],
)
def test_the_smallest_share_is_that_of_the_batches(n: int, batch: int, world: int, smallest: int) -> None:
    ranks = [TrainBatchSampler(EpochOrder(n), batch=batch, rank=rank, world_size=world) for rank in range(world)]
    assert min(len(keys) for sampler in ranks for keys in sampler) == smallest
    assert {sampler.smallest for sampler in ranks} == {smallest_share(n, min(batch, n), world)} == {smallest}


def test_one_image_of_one_cell_is_refused_and_nothing_else(tiny_model: Path) -> None:
    model = DetectionModel(str(tiny_model), verbose=False)
    with pytest.raises(ValueError, match="one image in a process, of 32 px at the least: a single cell of 32 px"):
        refuse_single_values(model, 32, 1)
    refuse_single_values(model, 64, 1)
    refuse_single_values(model, 32, 2)
    refuse_single_values(model, None, 1)
    refuse_single_values(model, 32, None)
    refuse_single_values(nn.SyncBatchNorm.convert_sync_batchnorm(model), 32, 1)
    refuse_single_values(nn.Sequential(nn.BatchNorm2d(3)), 32, 1)  # nobody knows how it shrinks images


def test_the_smallest_size_of_a_step_is_known() -> None:
    sizes = {batch_size_px(160, 0.5, 32, 0, 0, step) for step in range(200)}
    assert min(sizes) == smallest_px(160, 0.5, 32) // 32 * 32 == 64
