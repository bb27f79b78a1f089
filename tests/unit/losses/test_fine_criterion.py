"""The loss of boxes whose edges are distributions, against a plain loop over images, queries and layers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from eyas.assign import HungarianMatcher, OverlapMatcher
from eyas.losses import FineCriterion, SetCriterion, bce_loss, focal_loss, matchability_loss, varifocal_loss
from eyas.losses.fine import LateCriterion, agreed
from eyas.losses.set_criterion import Supervised, unpack_objects
from eyas.nn.edges import BINS, bin_distances, expected_distances, move_edges
from eyas.types import DenoisingMeta, FineBoxes, Progress, SetPrediction

NC, SCALE = 3, 4.0
GAINS = {"giou": 2.0, "cls": 1.0, "l1": 5.0, "fgl": 0.15, "ddf": 1.5}


# -- numbers of the papers ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("z", "vfl", "mal", "vfl_negative", "mal_negative", "focal", "cost"),
    [
        (-2.0, 0.796157, 1.056444, 0.00135267, 0.00522382, 0.412520, 0.411167),
        (0.3, 0.404613, 0.714928, 0.211443, 0.371970, 0.0250983, -0.186344),
    ],
)
def test_one_cell(
    z: float, vfl: float, mal: float, vfl_negative: float, mal_negative: float, focal: float, cost: float
) -> None:
    """Spec detr-more 1.1: an overlap of 0.6, and a class that is not wanted."""
    logit, overlap, nothing = torch.tensor(z), torch.tensor(0.6), torch.tensor(0.0)
    assert varifocal_loss(logit, overlap).item() == pytest.approx(vfl, abs=1e-5)
    assert matchability_loss(logit, overlap).item() == pytest.approx(mal, abs=1e-5)
    assert varifocal_loss(logit, nothing).item() == pytest.approx(vfl_negative, abs=1e-5)
    assert matchability_loss(logit, nothing).item() == pytest.approx(mal_negative, abs=1e-5)
    assert focal_loss(logit, torch.tensor(1.0)).item() == pytest.approx(focal, abs=1e-5)
    assert HungarianMatcher().class_cost(logit).item() == pytest.approx(cost, abs=1e-5)


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.6, 1.0])
def test_gradients_of_a_wanted_class(overlap: float) -> None:
    """q (p - q) and p - q^1.5: a box that does not overlap still lowers its score under the second."""
    wanted = torch.tensor(True)
    for loss, slope in (
        (varifocal_loss, lambda p: overlap * (p - overlap)),
        (matchability_loss, lambda p: p - overlap**1.5),
    ):
        logit = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
        loss(logit, torch.tensor(overlap, dtype=torch.float64), wanted).backward()
        assert logit.grad.item() == pytest.approx(slope(logit.sigmoid().item()), abs=1e-12)


def test_no_gradient_flows_through_the_weight_of_unwanted_classes() -> None:
    logit = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    matchability_loss(logit, torch.zeros(()).double()).backward()
    p = logit.sigmoid().item()
    assert logit.grad.item() == pytest.approx(p**1.5 * p, abs=1e-12)


# -- predictions and objects -------------------------------------------------------------------------------------------
def as_batch(rows: list[tuple[float, ...]]) -> dict[str, Any]:
    t = torch.tensor(rows).view(-1, 6)
    return {"batch_idx": t[:, 0], "cls": t[:, 1:2], "bboxes": t[:, 2:]}


def objects() -> dict[str, Any]:
    """Two images: three objects, of which two lie alike, and one."""
    return as_batch(
        [
            (0, 0, 0.5, 0.5, 0.4, 0.6),
            (1, 1, 0.7, 0.6, 0.5, 0.7),
            (0, 2, 0.25, 0.3, 0.1, 0.12),
            (0, 1, 0.52, 0.5, 0.35, 0.5),
        ]
    )


def prediction(layers: int = 3, queries: int = 6, meta: DenoisingMeta | None = None, seed: int = 0) -> SetPrediction:
    """Return a prediction whose boxes follow from its distributions, as those of a model do."""
    rng = torch.Generator().manual_seed(seed)
    width = queries + (meta.split[0] if meta else 0)
    reference = 0.2 + 0.4 * torch.rand(2, width, 4, generator=rng)
    edges = (2 * torch.randn(layers, 2, width, 4 * BINS, generator=rng)).requires_grad_()
    boxes = move_edges(reference, expected_distances(edges, bin_distances(SCALE)), SCALE)
    return SetPrediction(
        boxes,
        (torch.randn(layers, 2, width, NC, generator=rng) - 1).requires_grad_(),
        (0.1 + 0.6 * torch.rand(2, queries, 4, generator=rng)).requires_grad_(),
        (torch.randn(2, queries, NC, generator=rng) - 1).requires_grad_(),
        meta,
        FineBoxes(
            edges,
            reference,
            (reference + 0.02 * torch.randn(2, width, 4, generator=rng)).requires_grad_(),
            (torch.randn(2, width, NC, generator=rng) - 1).requires_grad_(),
        ),
    )


def denoising(queries: int = 6) -> DenoisingMeta:
    """Two groups of three slots, positives before negatives."""
    pairs = [(0, 0, 0), (1, 0, 1), (0, 1, 2), (0, 2, 3), (0, 6, 0), (1, 6, 1), (0, 7, 2), (0, 8, 3)]
    return DenoisingMeta(*torch.tensor(pairs).unbind(1), groups=2, split=(12, queries))


# -- the plain reference -----------------------------------------------------------------------------------------------
def overlap_of(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and GIoU of two cx cy w h boxes; a side that is negative is none."""
    inter, union, hull = 1.0, [1.0, 1.0], 1.0
    for c, s in ((0, 2), (1, 3)):
        low, high = zip(*((x[c] - x[s] / 2, x[c] + x[s] / 2) for x in (a, b)), strict=True)
        inter = inter * (min(high) - max(low)).clamp(min=0)
        union = [area * x[s].clamp(min=0) for area, x in zip(union, (a, b), strict=True)]
        hull = hull * (max(high) - min(low))
    whole = union[0] + union[1] - inter
    return inter / whole, inter / whole - (hull - whole) / hull


def match_plainly(boxes: Tensor, scores: Tensor, wanted: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    cost = torch.zeros(len(boxes), len(wanted))
    for q in range(len(boxes)):
        for t in range(len(wanted)):
            p = scores[q, labels[t]].sigmoid()
            focal = -0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log()
            far = (boxes[q] - wanted[t]).abs().sum()
            cost[q, t] = 2 * focal + 5 * far + 2 * (1 - overlap_of(boxes[q], wanted[t])[1])
    return list(zip(*linear_sum_assignment(cost.detach().numpy()), strict=True)) if len(wanted) else []


def agreed_plainly(matchings: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """The most frequent object of each query."""
    kept: dict[int, int] = {}
    pairs = sorted({p for m in matchings for p in m}, key=lambda p: (-sum(m.count(p) for m in matchings), p[1]))
    for q, t in pairs:
        kept.setdefault(q, t)
    return sorted(kept.items())


def edge_loss_plainly(z: Tensor, reference: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy of four edges with the two bins beside where they are."""
    w = bin_distances(SCALE).tolist()
    cx, cy, width, height = reference.tolist()
    x, y, tw, th = wanted.tolist()
    goals = (
        (cx - (x - tw / 2)) * SCALE / width - SCALE / 2,
        (cy - (y - th / 2)) * SCALE / height - SCALE / 2,
        (x + tw / 2 - cx) * SCALE / width - SCALE / 2,
        (y + th / 2 - cy) * SCALE / height - SCALE / 2,
    )
    total = torch.zeros(())
    for edge, goal in zip(z.view(4, BINS), goals, strict=True):
        n = max((i for i in range(BINS - 1) if w[i] <= goal), default=0)
        right = min(max((goal - w[n]) / (w[n + 1] - w[n]), 0.0), 1.0)
        log_p = edge.log_softmax(-1)
        total = total - (1 - right) * log_p[n] - right * log_p[n + 1]
    return total


def teaching_plainly(z: Tensor, teacher: Tensor) -> list[Tensor]:
    """T^2 KL of four edges."""
    t, own = (teacher.detach().view(4, BINS) / 5).softmax(-1), (z.view(4, BINS) / 5).log_softmax(-1)
    return list(25 * (t * (t.log() - own)).sum(-1))


def class_plainly(scores: Tensor, overlaps: dict[int, float], labels: dict[int, int], gamma: float | None) -> Tensor:
    p, goal = scores.detach().sigmoid(), torch.zeros_like(scores)
    weight = 0.75 * p**2 if gamma is None else p**gamma
    for q, c in labels.items():
        goal[q, c] = overlaps[q] if gamma is None else overlaps[q] ** gamma
        weight[q, c] = overlaps[q] if gamma is None else 1.0
    return (weight * bce_loss(scores, goal)).sum()


def expected(pred: SetPrediction, batch: dict[str, Any], gamma: float | None = None) -> dict[str, Tensor]:
    """The sum of each term over all outputs, without gains."""
    assert pred.fine is not None
    meta, first = pred.dn_meta, 0 if pred.dn_meta is None else pred.dn_meta.split[0]
    layers = len(pred.dec_scores)
    image, labels, wanted = batch["batch_idx"].long(), batch["cls"].view(-1).long(), batch["bboxes"]
    rows = [[t for t in range(len(image)) if image[t] == b] for b in range(2)]
    terms = {name: torch.zeros(()) for name in GAINS}
    outputs = [
        (pred.enc_bboxes, pred.enc_scores, None),
        (pred.fine.first_bboxes[:, first:], pred.fine.first_scores[:, first:], None),
    ]
    outputs += [
        (pred.dec_bboxes[i][:, first:], pred.dec_scores[i][:, first:], pred.fine.edges[i][:, first:])
        for i in range(layers)
    ]
    matched = [
        [
            [(q, rows[b][t]) for q, t in match_plainly(boxes[b], scores[b], wanted[rows[b]], labels[rows[b]])]
            for b in range(2)
        ]
        for boxes, scores, _ in outputs
    ]
    common = [agreed_plainly([m[b] for m in matched]) for b in range(2)]
    found_numbers = []
    add(terms, outputs, matched, common, pred.fine.reference[:, first:], labels, wanted, gamma, found_numbers)
    if meta is not None:
        pairs = [
            [(int(q), int(t)) for i, q, t in zip(meta.image, meta.query, meta.target, strict=True) if i == b]
            for b in range(2)
        ]
        noisy = [(pred.fine.first_bboxes[:, :first], pred.fine.first_scores[:, :first], None)]
        noisy += [
            (pred.dec_bboxes[i][:, :first], pred.dec_scores[i][:, :first], pred.fine.edges[i][:, :first])
            for i in range(layers)
        ]
        add(
            terms,
            noisy,
            [pairs] * len(noisy),
            pairs,
            pred.fine.reference[:, :first],
            labels,
            wanted,
            gamma,
            found_numbers,
        )
    return terms


def add(
    terms: dict[str, Tensor],
    outputs: list[Any],
    matched: list[Any],
    common: list[Any],
    reference: Tensor,
    labels: Tensor,
    wanted: Tensor,
    gamma: float | None,
    numbers: list[float],
) -> None:
    objects = sum(len(pairs) for pairs in matched[0])
    kept = sum(len(pairs) for pairs in common)
    teacher, queries = outputs[-1], outputs[0][0].shape[1]
    if not numbers:  # denoising takes over the weights of the other queries
        numbers += [math.sqrt(kept), math.sqrt(2 * queries - kept)]
    for (boxes, scores, edges), pairs_of in zip(outputs, matched, strict=True):
        found, free = [], []
        for b in range(2):
            overlaps = {q: float(overlap_of(boxes[b, q], wanted[t])[0].detach()) for q, t in pairs_of[b]}
            classes = {q: int(labels[t]) for q, t in pairs_of[b]}
            terms["cls"] = terms["cls"] + class_plainly(scores[b], overlaps, classes, gamma) / objects
            for q, t in common[b]:
                iou, giou = overlap_of(boxes[b, q], wanted[t])
                terms["giou"] = terms["giou"] + (1 - giou) / kept
                terms["l1"] = terms["l1"] + (boxes[b, q] - wanted[t]).abs().sum() / kept
                if edges is not None:
                    loss = edge_loss_plainly(edges[b, q], reference[b, q], wanted[t])
                    terms["fgl"] = terms["fgl"] + iou.detach() * loss / kept
                    found += [iou.detach() * k for k in teaching_plainly(edges[b, q], teacher[2][b, q])]
            if edges is not None:
                for q in sorted(set(range(queries)) - {q for q, _ in common[b]}):
                    sure = teacher[1][b, q].detach().sigmoid().max()
                    free += [sure * k for k in teaching_plainly(edges[b, q], teacher[2][b, q])]
        if edges is not None and edges is not teacher[2]:
            means = [sum(part) / len(part) for part in (found, free)]
            terms["ddf"] = terms["ddf"] + (means[0] * numbers[0] + means[1] * numbers[1]) / sum(numbers)


@pytest.mark.parametrize("with_denoising", [False, True])
@pytest.mark.parametrize("gamma", [None, 1.5])
def test_all_terms_are_those_of_a_plain_loop(with_denoising: bool, gamma: float | None) -> None:
    pred = prediction(meta=denoising() if with_denoising else None)
    loss, items = FineCriterion(nc=NC, scale=SCALE, matchability=gamma)(pred, objects())
    terms = expected(pred, objects(), gamma)
    assert list(items) == ["giou_loss", "cls_loss", "l1_loss", "fgl_loss", "ddf_loss"]
    plain = torch.stack([terms[name] * gain for name, gain in GAINS.items()])
    assert torch.allclose(loss, plain, rtol=1e-4, atol=1e-5), (loss, plain)
    assert (loss > 0).all()
    assert pred.fine is not None
    leaves = [pred.fine.edges, pred.dec_scores, pred.enc_bboxes, pred.enc_scores, *pred.fine[2:]]
    ours = torch.autograd.grad(loss.sum(), leaves, retain_graph=True)
    theirs = torch.autograd.grad(plain.sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_the_terms_by_name_add_up_to_the_loss() -> None:
    pred = prediction(meta=denoising())
    criterion = FineCriterion(nc=NC, scale=SCALE)
    terms = criterion.all_terms(pred, objects())
    assert sum(terms.values()).item() == pytest.approx(criterion(pred, objects())[0].sum().item(), rel=1e-5)
    assert terms["loss_ddf"] == 0 and terms["loss_ddf_aux"] > 0, "the last layer teaches, and is not taught"
    assert criterion(pred, objects())[1]["ddf_loss"] == pytest.approx(terms["loss_ddf_aux"].item(), rel=1e-5)


# -- common pairs ------------------------------------------------------------------------------------------------------
def test_each_query_keeps_the_object_that_most_outputs_gave_it() -> None:
    query = torch.tensor([[0, 1, 4], [0, 2, 4], [1, 2, 4], [2, -1, 3]])  # of three objects, the last in another image
    scores, boxes = torch.zeros(4, 2, 6, NC), torch.zeros(4, 2, 6, 4)
    stack = agreed(Supervised(("aux",) * 4, scores, boxes, torch.tensor([0, 0, 1]), query, torch.arange(3)))
    kept = {
        (int(b), int(q), int(t)) for b, q, t in zip(stack.image, stack.query[0], stack.target, strict=True) if q >= 0
    }
    assert kept == {(0, 0, 0), (0, 1, 0), (0, 2, 1), (1, 4, 2), (1, 3, 2)}
    assert (stack.query >= 0).sum(1).tolist() == [5] * 4, "each pair once"


def test_an_object_of_another_image_is_no_rival() -> None:
    query = torch.tensor([[3, 3], [3, 3]])
    empty = torch.zeros(2, 2, 6, NC), torch.zeros(2, 2, 6, 4)
    stack = agreed(Supervised(("aux", "main"), *empty, torch.tensor([1, 0]), query, torch.arange(2)))
    assert sorted(stack.target[stack.query[0] >= 0].tolist()) == [0, 1]


# -- what holds as for every criterion ---------------------------------------------------------------------------------
def test_without_objects_every_output_keeps_a_gradient_for_its_classes() -> None:
    pred = prediction()
    loss, _ = FineCriterion(nc=NC, scale=SCALE)(pred, as_batch([]))
    assert loss.isfinite().all() and loss[[0, 2, 3]].tolist() == [0, 0, 0] and loss[1] > 0
    loss.sum().backward()
    assert pred.fine is not None and pred.fine.edges.grad is not None and pred.dec_scores.grad is not None


def test_a_class_weight_doubles_the_gradient_of_its_class_and_no_other() -> None:
    grads = []
    for weights in (None, [1.0, 2.0, 1.0]):
        pred = prediction(meta=denoising())
        FineCriterion(nc=NC, scale=SCALE, matchability=1.5, class_weights=weights)(pred, objects())[0].sum().backward()
        grads.append(pred.dec_scores.grad)
    assert torch.allclose(grads[1], grads[0] * torch.tensor([1.0, 2.0, 1.0]))


def test_what_lies_in_an_area_is_not_taught_as_background() -> None:
    everywhere = {
        "ignored": torch.tensor([[0.5, 0.5, 4.0, 4.0]]),
        "ignored_idx": torch.tensor([1]),
        "ignored_kind": torch.tensor([0]),
        "ignored_classes": torch.tensor([[True, False, True]]),
    }
    pred = prediction(meta=denoising())
    criterion = FineCriterion(nc=NC, scale=SCALE)
    criterion(pred, objects() | everywhere)[0].sum().backward()
    answers = agreed_queries(pred)
    quiet = torch.ones(pred.dec_scores.shape[2], dtype=torch.bool)
    quiet[answers] = False
    grad = pred.dec_scores.grad
    assert criterion.areas_seen == 1
    assert (
        (grad[:, 1, quiet][..., [0, 2]] == 0).all() and (grad[:, 1, :, 1] != 0).all() and (grad[:, 0] != 0).any(1).all()
    )


def agreed_queries(pred: SetPrediction) -> list[int]:
    """Positions in image 1 that answer for its object in some layer, or in the denoising part."""
    batch = objects()
    query = HungarianMatcher()(
        pred.dec_scores[:, :, 12:].detach(),
        pred.dec_bboxes[:, :, 12:].detach(),
        batch["cls"].view(-1).long(),
        batch["bboxes"],
        batch["batch_idx"].long(),
    )
    return [*(12 + q for q in query[:, 1].tolist()), 0, 6]


def on_meta(value: Any) -> Any:
    """The same without numbers: whoever asks for one fails, as a GPU would have to be waited for."""
    if isinstance(value, Tensor):
        return value.detach().to("meta")
    if isinstance(value, dict):
        return {key: on_meta(item) for key, item in value.items()}
    return type(value)(*map(on_meta, value)) if isinstance(value, tuple) and hasattr(value, "_fields") else value


def test_nothing_waits_for_the_device_but_the_matcher() -> None:
    class Ready(HungarianMatcher):
        def __call__(self, scores: Tensor, boxes: Tensor, *objects: Any) -> Tensor:
            return torch.zeros(len(scores), 4, dtype=torch.int64, device="meta")

    criterion = FineCriterion(nc=NC, scale=SCALE, matcher=Ready())
    wanted = unpack_objects(on_meta(objects()), torch.device("meta"))
    stacks, _, _ = criterion.shared(criterion.supervised(on_meta(prediction(meta=denoising())), wanted))
    losses = [loss for stack in stacks for loss in criterion.layer_losses(stack, wanted).values()]
    assert len(losses) == 3 * 5 and all(loss.is_meta for loss in losses)


@pytest.mark.parametrize(("epochs", "late"), [(10, [8, 9]), (1, []), (5, [4]), (132, [*range(106, 132)])])
def test_late_epochs_match_by_class_and_overlap_alone(epochs: int, late: list[int]) -> None:
    pred, batch = prediction(), unpack_objects(objects(), torch.device("cpu"))
    pairs = pred.dec_scores, pred.dec_bboxes, batch
    criterion = LateCriterion(nc=NC, scale=SCALE)
    before = criterion.match(*pairs)
    assert torch.equal(before, FineCriterion(nc=NC, scale=SCALE).match(*pairs))
    then = OverlapMatcher()(pred.dec_scores, pred.dec_bboxes, *batch)
    assert not torch.equal(before, then)
    for epoch in [*range(epochs), *late, 0]:  # any order: the epoch decides, not what was before
        criterion.set_progress(Progress(epoch, epochs))
        assert torch.equal(criterion.match(*pairs), then if epoch in late else before)


def test_own_losses_take_the_place_of_the_stock_ones() -> None:
    class Own(FineCriterion):
        def edge_loss(self, logits: Tensor, moved: Tensor) -> Tensor:
            return 0 * logits.sum(-1) + 1.0

        def teaching_loss(self, logits: Tensor, teacher: Tensor) -> Tensor:
            return 0 * logits.sum(-1)

    pred = prediction()
    loss, _ = Own(nc=NC, scale=SCALE, fgl_gain=1.0)(pred, objects())
    assert loss[4] == 0 and 0 < loss[3] < 3 * 4, "three layers of four edges, as far as boxes overlap"


def test_a_plain_set_criterion_can_have_the_matchability_loss() -> None:
    pred = prediction()
    plain, matchable = (SetCriterion(nc=NC, matchability=gamma)(pred, objects())[0] for gamma in (None, 1.5))
    assert torch.equal(plain[[0, 2]], matchable[[0, 2]]) and plain[1] != matchable[1]
