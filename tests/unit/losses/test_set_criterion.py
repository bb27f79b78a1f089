"""The set criterion against golden numbers (spec core J.2) and a plain loop over images and layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from eyas.assign import HungarianMatcher
from eyas.losses import SetCriterion, ciou_loss, focal_loss
from eyas.losses.set_criterion import Objects, Supervised, paired_boxes
from eyas.types import DenoisingMeta, SetPrediction

NC = 3
NAMES = ("loss_giou", "loss_class", "loss_bbox")
SUFFIXES = ("", "_aux", "_dn", "_aux_dn")
BOXES = [n + s for s in SUFFIXES for n in ("loss_giou", "loss_bbox")]


# -- predictions and objects -------------------------------------------------------------------------------------------
def as_batch(rows: list[tuple[float, ...]]) -> dict[str, Tensor]:
    t = torch.tensor(rows).view(-1, 6)
    return {"batch_idx": t[:, 0], "cls": t[:, 1:2], "bboxes": t[:, 2:]}


def golden_batch() -> dict[str, Tensor]:
    return as_batch(
        [
            (0, 0, 0.5, 0.5, 0.4, 0.6),
            (0, 2, 0.25, 0.3, 0.08, 0.1),
            (0, 1, 0.52, 0.5, 0.3, 0.3),
            (1, 1, 0.7, 0.6, 0.5, 0.7),
        ]
    )


def golden_prediction() -> SetPrediction:
    boxes = 0.5 + 0.3 * torch.sin(0.7 * torch.arange(2 * 2 * 10 * 4, dtype=torch.float64)).view(2, 2, 10, 4)
    scores = -1 + 2 * torch.sin(0.9 * torch.arange(2 * 2 * 10 * 3, dtype=torch.float64)).view(2, 2, 10, 3)
    boxes = (boxes * torch.tensor([1, 1, 0.6, 0.6])).float()
    return SetPrediction(boxes[1:], scores[1:].float(), boxes[0], scores[0].float(), None)


def random_batch(objects: tuple[int, ...], nc: int = NC, seed: int = 0) -> dict[str, Tensor]:
    """Return a batch with its rows in any order."""
    rng = torch.Generator().manual_seed(seed)
    total = sum(objects)
    image = torch.arange(len(objects)).repeat_interleave(torch.tensor(objects))
    return {
        "batch_idx": image[torch.randperm(total, generator=rng)].float(),
        "cls": torch.randint(nc, (total, 1), generator=rng).float(),
        "bboxes": 0.02 + 0.6 * torch.rand(total, 4, generator=rng),
    }


def denoising(batch: Mapping[str, Tensor], queries: int, groups: int = 2) -> DenoisingMeta | None:
    """Return the meta of ``groups`` copies of each image's objects, positives before negatives in each group."""
    image = batch["batch_idx"].long().tolist()
    if not image:
        return None
    most = max(image.count(b) for b in image)
    pairs = []
    for group in range(groups):
        seen = [0] * (max(image) + 1)
        for target, b in enumerate(image):
            pairs.append((b, 2 * most * group + seen[b], target))
            seen[b] += 1
    columns = torch.tensor(pairs).unbind(1)
    return DenoisingMeta(*columns, groups=groups, split=(2 * most * groups, queries))


def random_prediction(
    images: int, layers: int = 2, queries: int = 5, nc: int = NC, meta: DenoisingMeta | None = None, seed: int = 1
) -> SetPrediction:
    rng = torch.Generator().manual_seed(seed)
    width = queries + (meta.split[0] if meta else 0)
    return SetPrediction(
        (0.02 + 0.6 * torch.rand(layers, images, width, 4, generator=rng)).requires_grad_(),
        (torch.randn(layers, images, width, nc, generator=rng) - 1).requires_grad_(),
        (0.02 + 0.6 * torch.rand(images, queries, 4, generator=rng)).requires_grad_(),
        (torch.randn(images, queries, nc, generator=rng) - 1).requires_grad_(),
        meta,
    )


def gradients(value: Tensor, preds: SetPrediction) -> list[Tensor]:
    return list(torch.autograd.grad(value, preds[:4], allow_unused=True, materialize_grads=True))


# -- the plain reference: one image and one layer at a time, in float64 ------------------------------------------------
def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and GIoU of two cx cy w h boxes."""
    sides = []
    for centre, size in ((0, 2), (1, 3)):
        low, high = zip(*((x[centre] - x[size] / 2, x[centre] + x[size] / 2) for x in (a, b)), strict=True)
        inner = (torch.minimum(*high) - torch.maximum(*low)).clamp(min=0)
        sides.append((inner, torch.maximum(*high) - torch.minimum(*low)))
    inter, hull = sides[0][0] * sides[1][0], sides[0][1] * sides[1][1]
    union = a[2] * a[3] + b[2] * b[3] - inter
    return inter / union, inter / union - (hull - union) / hull


def match_plainly(boxes: Tensor, scores: Tensor, targets: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    """Return pairs of query and object of one image in one layer."""
    cost = torch.zeros(len(boxes), len(targets))
    for q in range(len(boxes)):
        for t in range(len(targets)):
            p = scores[q, labels[t]].sigmoid()
            focal = -0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log()
            l1 = (boxes[q] - targets[t]).abs().sum()
            cost[q, t] = 2 * focal + 5 * l1 + 2 * (1 - overlaps(boxes[q], targets[t])[1])
    return list(zip(*linear_sum_assignment(cost.detach().numpy()), strict=True)) if len(targets) else []


def plain_losses(
    boxes: Tensor, scores: Tensor, pairs: list[tuple[int, int]], targets: Tensor, labels: Tensor, weights: list[float]
) -> Tensor:
    """Return GIoU, class and L1 loss of one image in one layer, summed."""
    wanted: dict[tuple[int, int], Tensor] = {}
    giou_loss = l1_loss = cls_loss = boxes.new_zeros(())
    for q, t in pairs:
        iou, giou = overlaps(boxes[q], targets[t])
        wanted[int(q), int(labels[t])] = iou.detach()
        giou_loss = giou_loss + 1 - giou
        l1_loss = l1_loss + (boxes[q] - targets[t]).abs().sum()
    for q in range(scores.shape[0]):
        for c in range(scores.shape[1]):
            p = scores[q, c].sigmoid()
            target = wanted.get((q, c), torch.zeros_like(p))
            weight = target if (q, c) in wanted else 0.75 * p.detach() ** 2
            cls_loss = cls_loss - weights[c] * weight * (target * p.log() + (1 - target) * (1 - p).log())
    return torch.stack((2 * giou_loss, cls_loss, 5 * l1_loss))


def reference(preds: SetPrediction, batch: Mapping[str, Tensor], weights: list[float]) -> dict[str, Tensor]:
    """Return all terms."""
    image, labels = batch["batch_idx"].long(), batch["cls"].flatten().long()
    targets = batch["bboxes"].double()
    dec_boxes, dec_scores, enc_boxes, enc_scores = (x.double() for x in preds[:4])
    meta = preds.dn_meta
    first, layers, images = meta.split[0] if meta else 0, len(dec_boxes), dec_boxes.shape[1]
    terms = {suffix: dec_boxes.new_zeros(3) for suffix in SUFFIXES}
    matched = sum(min(int((image == b).sum()), enc_boxes.shape[1]) for b in range(images))
    for b in range(images):
        own = [int(t) for t in (image == b).nonzero()]
        outputs = [(enc_boxes[b], enc_scores[b], "_aux")]
        outputs += [
            (dec_boxes[i, b, first:], dec_scores[i, b, first:], "" if i == layers - 1 else "_aux")
            for i in range(layers)
        ]
        for boxes, scores, suffix in outputs:
            pairs = [(q, own[t]) for q, t in match_plainly(boxes, scores, targets[own], labels[own])]
            loss = plain_losses(boxes, scores, pairs, targets, labels, weights)
            terms[suffix] = terms[suffix] + loss / max(matched, 1)
        for i in range(layers if meta else 0):
            fixed = zip(meta.image.tolist(), meta.query.tolist(), meta.target.tolist(), strict=True)
            pairs = [(q, t) for of, q, t in fixed if of == b]
            boxes, scores = dec_boxes[i, b, :first], dec_scores[i, b, :first]
            loss = plain_losses(boxes, scores, pairs, targets, labels, weights)
            suffix = "_dn" if i == layers - 1 else "_aux_dn"
            terms[suffix] = terms[suffix] + loss / max(len(meta.image), 1)
    return {name + s: value for s, row in terms.items() for name, value in zip(NAMES, row, strict=True)}


@settings(deadline=None, max_examples=40)
@given(
    objects=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    layers=st.integers(1, 3),
    queries=st.integers(1, 4),
    nc=st.integers(1, 4),
    groups=st.integers(0, 2),
    weighted=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_equals_a_plain_loop(
    objects: list[int], layers: int, queries: int, nc: int, groups: int, weighted: bool, seed: int
) -> None:
    batch = random_batch(tuple(objects), nc, seed)
    meta = denoising(batch, queries, groups) if groups else None
    preds = random_prediction(len(objects), layers, queries, nc, meta, seed + 1)
    weights = [0.5 + c for c in range(nc)] if weighted else [1.0] * nc
    criterion = SetCriterion(nc=nc, class_weights=weights if weighted else None)
    expected = reference(preds, batch, weights)
    terms = criterion.all_terms(preds, batch)
    assert terms.keys() == expected.keys()
    for name, value in terms.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-4, abs=1e-5), name
    losses, items = criterion(preds, batch)
    total = sum(expected.values())
    assert losses.sum().item() == pytest.approx(total.item(), rel=1e-4)
    assert list(items) == ["giou_loss", "cls_loss", "l1_loss"] == list(criterion.loss_names)
    for name, value in zip(NAMES, items.values(), strict=True):
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-4, abs=1e-5)
    for found, wanted in zip(gradients(losses.sum(), preds), gradients(total, preds), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


# -- golden numbers ----------------------------------------------------------------------------------------------------
def test_golden_terms() -> None:
    criterion = SetCriterion(nc=3, alpha=0.25, gamma=1.5)
    terms = criterion.all_terms(golden_prediction(), golden_batch())
    expected = {"loss_class": 0.836739, "loss_bbox": 2.298605, "loss_giou": 1.946378}
    expected |= {"loss_class_aux": 1.032603, "loss_bbox_aux": 2.431067, "loss_giou_aux": 1.54049}
    expected |= {name + suffix: 0.0 for name in NAMES for suffix in ("_dn", "_aux_dn")}
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=1e-5)
    loss, items = criterion((None, golden_prediction()), golden_batch())  # as evaluation gives it
    assert loss.tolist() == pytest.approx([1.946378 + 1.54049, 0.836739 + 1.032603, 2.298605 + 2.431067], rel=1e-5)
    assert [v.item() for v in items.values()] == pytest.approx([1.946378, 0.836739, 2.298605], rel=1e-5)
    assert not any(v.requires_grad for v in items.values())


def test_golden_matches() -> None:
    preds, batch = golden_prediction(), golden_batch()
    objects = Objects(batch["cls"].flatten().long(), batch["bboxes"], batch["batch_idx"].long())
    query = HungarianMatcher()(preds.dec_scores, preds.dec_bboxes, *objects)
    assert query.tolist() == [[9, 6, 8, 8]]


# -- one thing at a time -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("c", range(NC))
def test_doubling_a_class_weight_doubles_exactly_its_gradient(c: int) -> None:
    batch = random_batch((3, 0, 4))
    meta = denoising(batch, queries=5)
    doubled = [2.0 if i == c else 1.0 for i in range(NC)]
    found = []
    for weights in (None, doubled):
        preds = random_prediction(3, meta=meta)
        criterion = SetCriterion(nc=NC, class_weights=weights)
        loss, _ = criterion(preds, batch)
        found.append((loss, gradients(loss.sum(), preds)))
    (plain_loss, plain), (loss, weighted) = found
    assert torch.equal(plain_loss[[0, 2]], loss[[0, 2]])
    for before, after in zip(plain, weighted, strict=True):
        if before.shape[-1] == 4:
            assert torch.equal(before, after)
        else:  # matched, denoising and encoder queries alike
            assert torch.equal(after, before * torch.tensor(doubled))
            assert (before[..., c] != 0).float().mean() > 0.9


def test_gains_scale_their_term_only() -> None:
    batch = random_batch((3, 2))
    preds = random_prediction(2, meta=denoising(batch, 5))
    plain, _ = SetCriterion(nc=NC)(preds, batch)
    changed, _ = SetCriterion(nc=NC, giou_gain=4, cls_gain=0.25, l1_gain=0)(preds, batch)
    torch.testing.assert_close(changed, plain * torch.tensor([2.0, 0.25, 0.0]))


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 3.0]])
def test_no_objects(weights: list[float] | None) -> None:
    preds, batch = random_prediction(2), random_batch((0, 0))
    criterion = SetCriterion(nc=NC, class_weights=weights)
    loss, items = criterion(preds, batch)
    assert loss[0] == loss[2] == 0
    p = torch.cat([x.detach().flatten(0, -2) for x in (preds.enc_scores, preds.dec_scores)]).sigmoid()
    varifocal = -(0.75 * p**2 * (1 - p).log() * torch.tensor(weights or [1.0] * NC)).sum()
    assert loss[1].item() == pytest.approx(varifocal.item(), rel=1e-5)
    assert items["giou_loss"] == items["l1_loss"] == 0
    dec_boxes, dec_scores, enc_boxes, enc_scores = gradients(loss.sum(), preds)
    assert (dec_boxes == 0).all() and (enc_boxes == 0).all()
    assert (dec_scores > 0).all() and (enc_scores > 0).all()


def test_every_box_head_has_a_gradient_without_objects() -> None:
    preds, batch = random_prediction(2), random_batch((0, 0))
    heads = [torch.nn.Linear(4, 4) for _ in range(3)]
    boxes = torch.stack([head(x) for head, x in zip(heads[:2], preds.dec_bboxes, strict=True)]).sigmoid()
    through = preds._replace(dec_bboxes=boxes, enc_bboxes=heads[2](preds.enc_bboxes).sigmoid())
    SetCriterion(nc=NC)(through, batch)[0].sum().backward()
    for parameter in (p for head in heads for p in head.parameters()):
        assert parameter.grad is not None and (parameter.grad == 0).all()


def test_an_object_without_overlap_is_wanted_with_weight_0() -> None:
    batch = as_batch([(0, 1, 0.1, 0.1, 0.1, 0.1)])
    preds = random_prediction(1, layers=1, queries=1)
    boxes = torch.tensor([0.9, 0.9, 0.1, 0.1])
    preds = preds._replace(dec_bboxes=boxes.expand(1, 1, 1, 4), enc_bboxes=boxes.expand(1, 1, 4))
    loss, _ = SetCriterion(nc=NC)(preds, batch)
    gradient = torch.autograd.grad(loss[1], preds.dec_scores)[0].flatten()
    assert gradient[1] == 0 and gradient[0] > 0 and gradient[2] > 0


def test_objects_beyond_the_queries_neither_count_nor_pull() -> None:
    preds = random_prediction(2, layers=1, queries=2)
    many = random_batch((5, 1))
    loss, items = SetCriterion(nc=NC)(preds, many)
    stacks = SetCriterion(nc=NC).supervised(
        preds, Objects(many["cls"].flatten().long(), many["bboxes"], many["batch_idx"].long())
    )
    found = stacks[0].query[-1] >= 0
    assert found.sum() == 3
    kept = {name: value[found] for name, value in many.items()}
    _, without = SetCriterion(nc=NC)(preds, kept)
    for name, value in items.items():
        torch.testing.assert_close(value, without[name])
    assert all(g.isfinite().all() for g in gradients(loss.sum(), preds))


class Fixed(HungarianMatcher):
    """A matching made beforehand, which no change of a box can change."""

    def __init__(self, query: Tensor) -> None:
        super().__init__()
        self.query = query

    def __call__(self, *_: Any) -> Tensor:
        return self.query


def test_box_losses_have_the_slopes_they_show() -> None:
    """Finite differences along random directions; class losses have none, because the target is a constant."""
    batch = random_batch((3, 2))
    meta = denoising(batch, 5, groups=1)
    preds = random_prediction(2, layers=1, meta=meta)
    objects = Objects(batch["cls"].flatten().long(), batch["bboxes"], batch["batch_idx"].long())
    query = SetCriterion(nc=NC).supervised(preds, objects)[0].query
    criterion = SetCriterion(nc=NC, matcher=Fixed(query))

    def losses(moved: Tensor) -> Tensor:
        return criterion(preds._replace(dec_bboxes=moved), batch)[0]

    loss = losses(preds.dec_bboxes)
    assert (torch.autograd.grad(loss[1], preds.dec_bboxes, retain_graph=True)[0] == 0).all()
    slope = torch.autograd.grad(loss[0] + loss[2], preds.dec_bboxes)[0]
    rng, step = torch.Generator().manual_seed(0), 1e-4
    for _ in range(5):
        way = torch.randn(slope.shape, generator=rng)
        ahead, behind = (losses(preds.dec_bboxes.detach() + s * way)[[0, 2]].sum() for s in (step, -step))
        expected = (slope * way).sum().item()
        assert ((ahead - behind) / (2 * step)).item() == pytest.approx(expected, rel=0.02, abs=0.02)


def test_float32_inside_autocast() -> None:
    batch = random_batch((3, 2))
    preds = random_prediction(2, meta=denoising(batch, 5))
    expected, _ = SetCriterion(nc=NC)(preds, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = SetCriterion(nc=NC)(preds, batch)
    assert torch.equal(loss, expected)
    half = SetPrediction(*(x.half() for x in preds[:4]), preds.dn_meta)
    same = SetPrediction(*(x.half().float() for x in preds[:4]), preds.dn_meta)
    loss, _ = SetCriterion(nc=NC)(half, batch)
    assert loss.dtype is torch.float32
    assert torch.equal(loss, SetCriterion(nc=NC)(same, batch)[0])


def test_a_prediction_gone_to_infinity_wins_no_object() -> None:
    batch = random_batch((3, 2))
    preds = random_prediction(2)
    with torch.no_grad():
        preds.dec_bboxes[:, 0, 2] = math.inf
        preds.enc_bboxes[1, 0] = math.nan
    loss, _ = SetCriterion(nc=NC)(preds, batch)
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in gradients(loss.sum(), preds))


def test_an_object_without_area_that_finds_no_query_costs_nothing() -> None:
    rows = [(0, 1, 0.3, 0.3, 0.2, 0.2), (0, 0, 0.6, 0.6, 0.0, 0.0)]
    preds = random_prediction(1, layers=1, queries=1)
    with_point, _ = SetCriterion(nc=NC, matcher=Fixed(torch.tensor([[0, -1]] * 2)))(preds, as_batch(rows))
    without, _ = SetCriterion(nc=NC, matcher=Fixed(torch.tensor([[0]] * 2)))(preds, as_batch(rows[:1]))
    assert torch.equal(with_point, without)


def test_wrong_class_weights() -> None:
    with pytest.raises(ValueError, match="one for each class"):
        SetCriterion(nc=NC, class_weights=[1, 2])


# -- what a family of its own changes ----------------------------------------------------------------------------------
def test_a_class_loss_of_its_own() -> None:
    class Focal(SetCriterion):
        def class_loss(self, logits: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
            assert ((targets > 0) <= positive).all()
            return focal_loss(logits, positive.float())

    batch = random_batch((3, 2))
    preds = random_prediction(2, meta=denoising(batch, 5))
    plain, _ = SetCriterion(nc=NC)(preds, batch)
    changed, _ = Focal(nc=NC)(preds, batch)
    assert torch.equal(changed[[0, 2]], plain[[0, 2]]) and changed[1] != plain[1]


def test_another_box_loss_changes_its_term_only() -> None:
    class Complete(SetCriterion):
        def box_loss(self, pred: Tensor, target: Tensor) -> Tensor:
            return ciou_loss(pred, target)

    batch = random_batch((3, 2))
    preds = random_prediction(2)
    plain, _ = SetCriterion(nc=NC)(preds, batch)
    changed, _ = Complete(nc=NC)(preds, batch)
    assert torch.equal(changed[1:], plain[1:]) and changed[0] != plain[0]


def test_a_fourth_loss() -> None:
    class Centres(SetCriterion):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.gains["centre"] = 3.0

        def layer_losses(self, stack: Supervised, objects: Objects) -> dict[str, Tensor]:
            pred, target, _ = paired_boxes(stack, objects)
            away = (pred[..., :2] - target[..., :2]).abs().sum((1, 2))
            return {**super().layer_losses(stack, objects), "centre": away}

    batch = random_batch((3, 2))
    preds = random_prediction(2, meta=denoising(batch, 5))
    loss, items = Centres(nc=NC)(preds, batch)
    assert loss.shape == (4,) and list(items)[-1] == "centre_loss"
    terms = Centres(nc=NC).all_terms(preds, batch)
    assert sum(value for name, value in terms.items() if "centre" in name).item() == pytest.approx(loss[3].item())


# -- waiting -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [0, 5])
@pytest.mark.parametrize("dn", [True, False])
def test_only_the_matcher_reads_from_the_device(rows: int, dn: bool) -> None:
    """Fake tensors have shapes and no values: a branch on a value, `.item()`, a shape that depends on data raise."""
    with FakeTensorMode():
        meta = None
        if dn and rows:
            meta = DenoisingMeta(*(torch.zeros(rows, dtype=torch.int64) for _ in range(3)), 1, (8, 5))
        width = 13 if meta else 5
        preds = SetPrediction(
            torch.rand(3, 2, width, 4, requires_grad=True),
            torch.rand(3, 2, width, NC, requires_grad=True),
            torch.rand(2, 5, 4, requires_grad=True),
            torch.rand(2, 5, NC, requires_grad=True),
            meta,
        )
        batch = {"batch_idx": (rows,), "cls": (rows, 1), "bboxes": (rows, 4)}
        on_device = {name: torch.zeros(shape) for name, shape in batch.items()}
        query = torch.zeros(4, rows, dtype=torch.int64)
        criterion = SetCriterion(nc=NC, matcher=Fixed(query))
        loss, _ = criterion(preds, on_device)
        loss.sum().backward()
        matcher = HungarianMatcher()
        objects = [on_device["cls"].flatten().long(), on_device["bboxes"], on_device["batch_idx"].long()]
        assert matcher.cost(preds.dec_scores, preds.dec_bboxes, *objects).shape == (3, rows, width)
        with pytest.raises(RuntimeError):  # the guard itself works
            torch.empty(3).nonzero()


def test_one_transfer_in_a_whole_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Size] = []
    to_host: Callable[[Tensor], Tensor] = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda self: seen.append(self.shape) or to_host(self))
    batch = random_batch((3, 0, 4))
    preds = random_prediction(3, meta=denoising(batch, 5))
    loss, _ = SetCriterion(nc=NC)(preds, batch)
    loss.sum().backward()
    assert len(seen) == 1
