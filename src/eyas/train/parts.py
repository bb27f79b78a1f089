"""A batch cut by images: what belongs to some of them, with their objects and areas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

OWNERS = {"batch_idx": ("cls", "bboxes"), "ignored_idx": ("ignored", "ignored_kind")}
"""Entries that name the image of each row -> those whose rows they are."""
WHOLE = ("ignored_classes",)  # the same for all images, however many rows it has


def can_be_cut(batch: object) -> bool:
    """Whether it is a batch whose images and objects we know; a user's own may be anything."""
    return isinstance(batch, Mapping) and {"img", *OWNERS["batch_idx"], "batch_idx"} <= batch.keys()


def some_images(batch: Any, first: int, stop: int) -> Any:
    """Return a batch of the images ``first`` to ``stop``; what has a row for each image or object is cut, too."""
    images = len(batch["img"])
    cut = dict(batch)
    for owner, rows in OWNERS.items():
        if owner in batch:
            mine = (batch[owner] >= first) & (batch[owner] < stop)
            cut |= {name: batch[name][mine] for name in rows}
            cut[owner] = batch[owner][mine] - first
    by_object = {name for owner, rows in OWNERS.items() for name in (owner, *rows)}
    for name, value in batch.items():
        if name not in by_object and name not in WHOLE and isinstance(value, Tensor | list | tuple):
            cut[name] = value[first:stop] if len(value) == images else value
    return cut


def in_parts(batch: Any, count: int) -> Iterator[Any]:
    """Yield a batch in so many parts, whose sizes differ by one image at the most; of fewer images, one by one."""
    images = len(batch["img"])
    count = min(count, images)
    for number in range(count):
        yield some_images(batch, number * images // count, (number + 1) * images // count)
