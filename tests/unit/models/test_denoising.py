"""Denoising queries: where they lie, what they hold, who sees them (spec core D.6, J.5)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from eyas.boxes import cxcywh_to_xyxy
from eyas.losses import SetCriterion
from eyas.models.rtdetr.denoising import DenoisingQueries, denoising_queries
from eyas.types import SetPrediction

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


@pytest.mark.parametrize(
    ("most", "groups", "total"), [(1, 100, 200), (3, 33, 198), (7, 14, 196), (33, 3, 198), (100, 1, 200), (150, 1, 200)]
)
def test_published_sizes_of_groups(most: int, groups: int, total: int) -> None:
    """Spec detr-more 1.2; of 150 objects, which others take part in 300 queries, 100 are drawn here."""
    meta = make(batch([most, 1]), images=2).meta
    assert (meta.groups, meta.split[0]) == (groups, total)


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
    corners = cxcywh_to_xyxy(make(data, images=1, budget=300, box_noise=0.4).boxes.sigmoid())
    assert corners.min().item() == pytest.approx(0, abs=3e-6), "cut there, but for rounding"
    assert corners.max().item() == pytest.approx(1, abs=3e-6)


def test_a_side_as_long_as_the_image_has_the_largest_logit() -> None:
    data = batch([1])
    data["bboxes"] = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    made = make(data, images=1, budget=1, box_noise=0)
    expected = torch.tensor([0, 0, 13.8155, 13.8155])  # ln(1 / 1e-6)
    torch.testing.assert_close(made.boxes[0, 0], expected, atol=1e-3, rtol=0)


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


def without_rest(data: dict[str, Any], most: int) -> tuple[dict[str, Any], torch.Tensor]:
    """Return the batch without the objects that come after the first ``most`` of their image, and which are left."""
    seen: dict[int, int] = {}
    kept = []
    for row, image in enumerate(data["batch_idx"].int().tolist()):
        seen[image] = seen.get(image, 0) + 1
        kept += [row] if seen[image] <= most else []
    rows = torch.tensor(kept)
    return {k: data[k][rows] for k in ("batch_idx", "cls", "bboxes")} | {"max_objects": most}, rows


@pytest.mark.parametrize("counts", [[2, 5], [5, 2], [4, 0, 5, 3]])
@pytest.mark.parametrize("shuffled", [False, True])
def test_objects_beyond_a_stale_count_take_no_part(counts: list[int], shuffled: bool) -> None:
    """As if they had been dropped before: nothing of theirs in any slot, and no pair."""
    data = batch(counts, shuffled=shuffled) | {"max_objects": 3}
    dropped, rows = without_rest(data, 3)
    stale, expected = (make(b, images=len(counts), budget=7, label_noise=0, box_noise=0) for b in (data, dropped))
    assert torch.equal(stale.content, expected.content)
    assert torch.equal(stale.boxes, expected.boxes)
    assert torch.equal(stale.blocked, expected.blocked)
    assert stale.meta[3:] == expected.meta[3:] == (2, (12, 10))
    pair = stale.meta.query >= 0
    for ours, theirs in zip(stale.meta[:2], expected.meta[:2], strict=True):
        assert torch.equal(ours[pair], theirs)
    assert torch.equal(stale.meta.target[pair], rows[expected.meta.target])


def test_noise_is_that_of_the_right_count() -> None:
    """With as many groups, what fits gets the same labels and boxes as if there were room for all."""
    data = batch([1, 5, 3])
    right, stale = make(data, images=3, budget=5), make(data | {"max_objects": 3}, images=3, budget=5)
    slots = torch.tensor([0, 1, 2, 5, 6, 7])  # of the right one, that the stale one has too
    assert torch.equal(stale.content, right.content[:, slots])
    assert torch.equal(stale.boxes, right.boxes[:, slots])


def test_objects_beyond_a_stale_count_do_not_change_the_loss() -> None:
    data = batch([2, 5], nc=3) | {"max_objects": 3}
    metas = [make(b, images=2, budget=7, label_noise=0, box_noise=0).meta for b in (data, without_rest(data, 3)[0])]
    g = torch.Generator().manual_seed(2)
    boxes, scores = torch.rand(2, 2, 22, 4, generator=g) * 0.4 + 0.2, torch.randn(2, 2, 22, 3, generator=g)
    metas[1] = metas[1]._replace(target=without_rest(data, 3)[1][metas[1].target])
    stale, expected = (
        SetCriterion(nc=3).all_terms(SetPrediction(boxes, scores, boxes[0, :, 12:], scores[0, :, 12:], meta), data)
        for meta in metas
    )
    assert expected["loss_giou_dn"] > 0.1
    for name in expected:
        torch.testing.assert_close(stale[name], expected[name], msg=name)


def test_a_count_of_none_makes_no_denoising() -> None:
    """A callback that adds the first objects of a batch."""
    data = batch([2, 1]) | {"max_objects": 0}
    assert denoising_queries(data, torch.ones(5, 2), images=2, queries=3, nc=5, budget=100) is None


def test_no_objects_and_no_count() -> None:
    assert denoising_queries(batch([0, 0]), torch.ones(5, 2), images=2, queries=3, nc=5, budget=100) is None
    data = batch([3, 1])
    with_count = make(data, images=2)
    del data["max_objects"]
    assert torch.equal(make(data, images=2).boxes, with_count.boxes)


@pytest.mark.parametrize("most", [3, 2])
def test_device_is_not_waited_for(most: int) -> None:
    """On the meta device nothing has a value, so asking for one is an error, whether or not the count is right."""
    given = batch([3, 1]) | {"max_objects": most}
    data = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    made = denoising_queries(data, torch.ones(5, WIDTH, device="meta"), images=2, queries=10, nc=5, budget=100)
    assert made is not None
    assert made.content.shape == (2, 100 // most * 2 * most, WIDTH)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        data = {k: mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for k, v in given.items()}
        made = denoising_queries(data, torch.ones(5, WIDTH), images=2, queries=10, nc=5, budget=100)
    assert made is not None
    assert made.meta.query.shape == (100 // most * 4,)
