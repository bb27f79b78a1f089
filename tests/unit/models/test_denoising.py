"""Denoising queries: where they lie, what they hold, who sees them (spec core D.6, J.5)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eyas.boxes import cxcywh_to_xyxy
from eyas.models.rtdetr.denoising import DenoisingQueries, denoising_queries

WIDTH = 6


def batch(counts: list[int], nc: int = 5, seed: int = 0, shuffled: bool = False) -> dict[str, Any]:
    """Objects of images, ``counts[b]`` in image b; rows in order of images, or in any."""
    g = torch.Generator().manual_seed(seed)
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    if shuffled:
        image = image[torch.randperm(len(image), generator=g)]
    n = len(image)
    return {
        "batch_idx": image.float(),
        "cls": torch.randint(nc, (n, 1), generator=g).float(),
        "bboxes": torch.cat((torch.rand(n, 2, generator=g) * 0.4 + 0.3, torch.rand(n, 2, generator=g) * 0.3 + 0.1), 1),
        "max_objects": max(counts, default=0),
    }


def make(data: dict[str, Any], images: int, queries: int = 10, budget: int = 100, **noise: float) -> DenoisingQueries:
    torch.manual_seed(1)
    embedding = torch.arange(5.0)[:, None].expand(5, WIDTH) + 1  # class c is a row of c + 1
    made = denoising_queries(data, embedding, images=images, queries=queries, nc=5, budget=budget, **noise)
    assert made is not None
    return made


def test_layout() -> None:
    made = make(batch([3, 1]), images=2, budget=8)
    meta = made.meta
    assert (meta.groups, meta.split) == (2, (12, 10))
    assert made.content.shape == (2, 12, WIDTH)
    assert made.boxes.shape == (2, 12, 4)
    for image, expected in ((0, [0, 1, 2, 6, 7, 8]), (1, [0, 6])):
        assert sorted(meta.query[meta.image == image].tolist()) == expected
    assert made.blocked.shape == (22, 22)
    rows = [made.blocked[i].nonzero().flatten().tolist() for i in (0, 6, 21)]
    assert rows == [list(range(6, 12)), list(range(6)), list(range(12))]
    assert make(batch([3, 1]), images=2).meta[3:] == (33, (198, 10))


@pytest.mark.parametrize("shuffled", [False, True])
def test_without_noise_every_slot_holds_its_object(shuffled: bool) -> None:
    data = batch([2, 0, 4, 1], shuffled=shuffled)
    made = make(data, images=4, budget=9, label_noise=0, box_noise=0)
    meta, slots, groups = made.meta, 4, 2
    assert meta.groups == groups
    assert torch.equal(meta.image, data["batch_idx"].long()[meta.target])
    for part in (0, 1):  # positives, then negatives
        at = (meta.image, meta.query + part * slots)
        assert torch.equal(made.content[at], data["cls"][meta.target].expand(-1, WIDTH) + 1)
        torch.testing.assert_close(made.boxes[at].sigmoid(), data["bboxes"][meta.target])
    filled = made.content.any(-1)
    assert filled.sum(1).tolist() == [2 * groups * n for n in (2, 0, 4, 1)]
    assert not made.boxes[~filled].any()
    pairs = {(i, q) for i, q in zip(meta.image.tolist(), meta.query.tolist(), strict=True)}
    assert len(pairs) == len(meta.query) == 7 * groups


def test_noise_moves_corners_by_the_allowed_share() -> None:
    data = batch([5])
    data["bboxes"] = torch.tensor([[0.5, 0.5, 0.2, 0.1]] * 5)
    made = make(data, images=1, budget=500, box_noise=0.4)  # at 0.5 and more, corners of negatives may cross
    corners = cxcywh_to_xyxy(made.boxes[0].sigmoid()).view(100, 2, 5, 4)
    moved = (corners - torch.tensor([0.4, 0.45, 0.6, 0.55])) / torch.tensor([0.1, 0.05, 0.1, 0.05])
    near, far = moved[:, 0], moved[:, 1]
    assert near.abs().max() <= 0.4 + 1e-4
    assert near.abs().mean() == pytest.approx(0.2, abs=0.01)
    assert 0.4 - 1e-4 <= far.abs().min() <= far.abs().max() <= 0.8 + 1e-4
    assert far.abs().mean() == pytest.approx(0.6, abs=0.01)
    assert (moved > 0).float().mean() == pytest.approx(0.5, abs=0.03)
    labels = made.content[0, :, 0].view(100, 2, 5) - 1
    wrong = (labels != data["cls"].view(5)).float().mean()
    assert wrong == pytest.approx(0.25 * 4 / 5, abs=0.04), "one in five random labels is the right one"


def test_boxes_stay_in_the_image() -> None:
    data = batch([3])
    data["bboxes"] = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.05, 0.05, 0.1, 0.1], [0.98, 0.5, 0.04, 1.0]])
    made = make(data, images=1, budget=300)
    assert made.boxes.isfinite().all()
    assert made.boxes.abs().max() < 14


def test_more_objects_than_the_budget() -> None:
    """A random part takes part, another one each time, and no two share a slot."""
    data = batch([130, 7])
    chosen = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        made = denoising_queries(data, torch.ones(5, WIDTH), images=2, queries=10, nc=5, budget=100)
        assert made is not None
        meta = made.meta
        assert (meta.groups, meta.split) == (1, (200, 10))
        assert sorted(meta.query[meta.image == 0].tolist()) == list(range(100))
        assert sorted(meta.query[meta.image == 1].tolist()) == list(range(7))
        assert torch.equal(meta.image, data["batch_idx"].long()[meta.target])
        chosen.append(set(meta.target[meta.image == 0].tolist()))
    assert chosen[0] != chosen[1]


def test_no_objects_and_no_count() -> None:
    assert denoising_queries(batch([0, 0]), torch.ones(5, 2), images=2, queries=3, nc=5, budget=100) is None
    data = batch([3, 1])
    with_count = make(data, images=2)
    del data["max_objects"]
    assert torch.equal(make(data, images=2).boxes, with_count.boxes)


def test_device_is_not_waited_for() -> None:
    """On the meta device nothing has a value, so asking for one is an error."""
    data = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in batch([3, 1]).items()}
    made = denoising_queries(data, torch.ones(5, WIDTH, device="meta"), images=2, queries=10, nc=5, budget=100)
    assert made is not None
    assert made.content.shape == (2, 198, WIDTH)
