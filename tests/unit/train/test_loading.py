"""The training loader that a user returned, before the first step."""

from __future__ import annotations

import re

import pytest
from torch.utils.data import DataLoader

from eyas.train import loading


@pytest.mark.parametrize(
    ("loader", "makeup"),
    [
        (DataLoader(range(5), batch_size=8, drop_last=True), " (5 images, batch 8, drop_last=True)"),
        (DataLoader([], batch_size=4), " (0 images, batch 4)"),
        ([], ""),
    ],
)
def test_a_loader_without_a_batch_is_refused(loader: object, makeup: str) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"get_dataloader() returned a loader of 0 batches{makeup}: nothing")
    ):
        loading.adopted(loader, batch=8)


def test_a_loader_of_one_batch_is_taken() -> None:
    loader = DataLoader(range(5), batch_size=8)
    assert loading.adopted(loader, batch=8) is loader
