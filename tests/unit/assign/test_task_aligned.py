"""The assigner against the specification written out as plain loops, and its behaviour at the edges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.assign import Assignment, TaskAlignedAssigner
from eyas.assign.task_aligned import candidate_overlaps, candidates
from eyas.boxes import elementwise_ciou

SIZES = ((8, 8), (4, 16), (2, 32))  # cells on a side, pixels per cell: a 64 px image


def anchors() -> torch.Tensor:
    points = []
    for cells, stride in SIZES:
        points += [[(x + 0.5) * stride, (y + 0.5) * stride] for y in range(cells) for x in range(cells)]
    return torch.tensor(points)


def scene(seed: int, per_image: list[int], nc: int = 3, spread: float = 20.0) -> dict[str, torch.Tensor]:
    """Predictions near their anchors and objects anywhere, some of them tiny."""
    g = torch.Generator().manual_seed(seed)
    points = anchors()
    b, a, t = len(per_image), len(points), sum(per_image)
    reach = torch.rand(b, a, 4, generator=g) * spread + 1
    boxes = torch.cat((points - reach[..., :2], points + reach[..., 2:]), -1)
    centre = torch.rand(t, 2, generator=g) * 64
    side = torch.rand(t, 2, generator=g).square() * 50 + 2
    return {
        "scores": torch.randn(b, a, nc, generator=g),
        "boxes": boxes,
        "points": points,
        "labels": torch.randint(0, nc, (t,), generator=g),
        "targets": torch.cat((centre - side / 2, centre + side / 2), 1),
        "image": torch.repeat_interleave(torch.arange(b), torch.tensor(per_image)),
    }


def by_loops(s: dict[str, torch.Tensor], topk: int, topk2: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return owner (B, A) and weight (B, A), following the text of the specification one object at a time."""
    b, a, _ = s["scores"].shape
    t = len(s["labels"])
    metric, overlap, candidate = torch.zeros(t, a), torch.zeros(t, a), torch.zeros(t, a, dtype=torch.bool)
    for j in range(t):
        x1, y1, x2, y2 = s["targets"][j].tolist()
        if x1 + y1 + x2 + y2 <= 0:
            continue
        grow_x, grow_y = max(16 - (x2 - x1), 0) / 2, max(16 - (y2 - y1), 0) / 2
        for i, (x, y) in enumerate(s["points"].tolist()):
            candidate[j, i] = min(x - x1 + grow_x, x2 + grow_x - x, y - y1 + grow_y, y2 + grow_y - y) > 1e-9
        image = s["image"][j]
        overlap[j] = elementwise_ciou(s["targets"][j], s["boxes"][image]).clamp(min=0) * candidate[j]
        score = s["scores"][image, :, s["labels"][j]].sigmoid()
        metric[j] = score**0.5 * overlap[j] ** 6 * candidate[j]
    positive = torch.zeros(t, a, dtype=torch.bool)
    for j in range(t):
        best = metric[j].argsort(descending=True, stable=True)[:topk]
        positive[j, best] = candidate[j, best]
    for image in range(b):
        mine = [j for j in range(t) if s["image"][j] == image]
        for i in range(a):
            if sum(bool(positive[j, i]) for j in mine) > 1:
                closest = max(mine, key=lambda j: (overlap[j, i].item(), -j))
                positive[mine, i] = False
                positive[closest, i] = True
    if topk2 != topk:
        for j in range(t):
            best = torch.where(positive[j], metric[j], -1.0).argsort(descending=True, stable=True)[:topk2]
            kept = torch.zeros(a, dtype=torch.bool)
            kept[best] = positive[j, best]
            positive[j] = kept
    owner, weight = torch.full((b, a), -1), torch.zeros(b, a)
    for j in range(t):
        scale = (overlap[j] * positive[j]).max() / ((metric[j] * positive[j]).max() + 1e-9)
        for i in positive[j].nonzero().flatten().tolist():
            owner[s["image"][j], i] = j
            weight[s["image"][j], i] = metric[j, i] * scale
    return owner, weight


@pytest.mark.parametrize(("topk", "topk2"), [(10, None), (7, 1), (5, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_specification_in_loops(seed: int, topk: int, topk2: int | None) -> None:
    s = scene(seed, [4, 0, 9, 1])
    result = TaskAlignedAssigner(topk=topk, topk2=topk2)(**s)
    owner, weight = by_loops(s, topk, topk2 or topk)
    torch.testing.assert_close(result.weight, weight, atol=1e-5, rtol=1e-3)
    matters = (weight > 0) | (
        result.weight > 0
    )  # among anchors of weight 0 the choice is arbitrary, and without effect
    assert torch.equal(result.owner[matters], owner[matters])
    assert torch.equal(result.labels[matters], s["labels"][owner[matters]])
    torch.testing.assert_close(result.boxes[matters], s["targets"][owner[matters]])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 6), min_size=1, max_size=4), st.sampled_from([None, 1]))
def test_invariants(seed: int, per_image: list[int], topk2: int | None) -> None:
    s = scene(seed, per_image)
    result = TaskAlignedAssigner(topk=7, topk2=topk2)(**s)
    fg = result.foreground
    assert ((result.weight >= 0) & (result.weight <= 1.001)).all()
    assert (result.weight[~fg] == 0).all()
    assert (result.boxes[~fg] == 0).all()
    images = torch.arange(len(per_image))[:, None].expand_as(result.owner)
    assert (s["image"][result.owner[fg]] == images[fg]).all(), "an anchor answers for an object of another image"
    if topk2 == 1 and fg.any():
        assert result.owner[fg].bincount().max() == 1


def test_order_of_objects_does_not_matter() -> None:
    s = scene(3, [5, 5])
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    shuffled = {**s, **{k: s[k][order] for k in ("labels", "targets", "image")}}
    a, b = TaskAlignedAssigner()(**s), TaskAlignedAssigner()(**shuffled)
    torch.testing.assert_close(a.weight, b.weight)
    assert torch.equal(a.labels * (a.weight > 0), b.labels * (b.weight > 0))


def test_no_objects_and_empty_rows_are_background() -> None:
    s = scene(0, [0, 0])
    result = TaskAlignedAssigner()(**s)
    assert isinstance(result, Assignment)
    assert not result.foreground.any()
    assert result.scores(3).shape == (2, 84, 3)
    assert result.scores(3).sum() == 0
    s = scene(0, [2, 1])
    s["targets"] = torch.zeros_like(s["targets"])
    assert TaskAlignedAssigner()(**s).weight.sum() == 0


def test_small_object_between_centres_has_candidates() -> None:
    points = anchors()
    tiny = torch.tensor([[5.0, 5, 7, 7]])  # no centre lies inside: the nearest are at 4 and 8
    assert not candidates(points, tiny, 0.0).any()
    inside = points[candidates(points, tiny, 16.0)[0]]
    assert sorted(map(tuple, inside.tolist())) == [(4, 4), (4, 12), (8, 8), (12, 4), (12, 12)]


def test_overlaps_are_those_of_the_box_room() -> None:
    s = scene(1, [3, 2])
    everywhere = torch.ones(5, len(s["points"]), dtype=torch.bool)
    got = candidate_overlaps(s["boxes"], s["targets"], s["image"], everywhere)
    expected = elementwise_ciou(s["targets"][:, None], s["boxes"][s["image"]]).clamp(min=0)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_fewer_anchors_than_topk() -> None:
    s = scene(0, [2])
    few = {**s, "scores": s["scores"][:, :3], "boxes": s["boxes"][:, :3], "points": s["points"][:3]}
    assert TaskAlignedAssigner(topk=10)(**few).weight.shape == (1, 3)
    assert TaskAlignedAssigner(topk=7, topk2=5)(**few).weight.shape == (1, 3)


def test_a_row_that_is_no_object_gets_no_anchor() -> None:
    """Zeros pad lists of objects; widened to the smallest side, such a row would cover the first cells."""
    case = scene(0, [1])
    for row in ([0.0, 0, 0, 0], [-9.0, -9, 8, 8]):
        assigned = TaskAlignedAssigner()(**case | {"targets": torch.tensor([row])})
        assert not assigned.foreground.any() and not assigned.weight.any()


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_prediction_gone_to_infinity_harms_nobody_else(bad: float) -> None:
    """It lies outside all objects, and no overlap or weight stops being a number."""
    case = scene(1, [2, 2])
    case["targets"] = torch.tensor([[2.0, 2, 20, 20], [4, 4, 30, 30], [2, 2, 28, 28], [10, 2, 30, 30]])
    far = ((case["points"] > 48).all(1)).nonzero()[:, 0]
    clean = TaskAlignedAssigner()(**case)
    case["boxes"][:, far] = bad
    spoilt = TaskAlignedAssigner()(**case)
    for one, other in zip(clean, spoilt, strict=True):
        assert torch.equal(one, other)
