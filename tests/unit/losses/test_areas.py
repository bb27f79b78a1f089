"""Areas to ignore in both losses, against plain loops and against losses without the predictions in them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from eyas.losses import DenseCriterion, EndToEndCriterion, SetCriterion
from eyas.losses.areas import Areas, areas_of, unjudged
from eyas.types import DenoisingMeta, SetPrediction

NC, STRIDES, SIDE = 3, (8, 16, 32), 64
EVERY = (True, True, True)


def with_areas(batch: dict[str, Any], *rows: tuple[int, int, float, float, float, float], kinds: Any = (EVERY,)) -> Any:
    """The batch with areas (image, kind, cx, cy, w, h), the kinds being which classes were not annotated."""
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
    return {
        **batch,
        "ignored": table[:, 2:],
        "ignored_idx": table[:, 0].long(),
        "ignored_kind": table[:, 1].long(),
        "ignored_classes": torch.tensor(kinds),
    }


# -- where predictions lie ---------------------------------------------------------------------------------------------
def lies_in(box: list[float], centre: list[float], area: list[float], least: float) -> bool:
    """The rule for one prediction and one area, in corners."""
    (x1, y1, x2, y2), (a1, b1, a2, b2) = box, area
    shared = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
    half = shared > 0 and shared >= 0.5 * max(x2 - x1, 0) * max(y2 - y1, 0)
    dx, dy = max(least - (a2 - a1), 0) / 2, max(least - (b2 - b1), 0) / 2
    return half or (a1 - dx < centre[0] < a2 + dx and b1 - dy < centre[1] < b2 + dy)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 3), b=st.integers(1, 3), p=st.integers(1, 7), m=st.integers(1, 5))
def test_predictions_in_areas_are_those_of_a_plain_loop(seed: int, n: int, b: int, p: int, m: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    # eighths, so that halves and edges are met exactly
    corner = torch.randint(0, 8, (n, b, p, 2), generator=rng) / 8
    boxes = torch.cat((corner, corner + torch.randint(0, 5, (n, b, p, 2), generator=rng) / 8), -1)
    centres = torch.rand(1, 1, p, 2, generator=rng)
    low = torch.randint(0, 8, (m, 2), generator=rng) / 8
    areas = Areas(
        torch.cat((low, low + torch.randint(1, 5, (m, 2), generator=rng) / 8), -1),
        torch.randint(0, b, (m,), generator=rng),
        torch.randint(0, 2, (m,), generator=rng),
        torch.tensor([[True, True, True], [False, True, False]]),
    )
    least = 0.2
    expected = torch.zeros(n, b, p, NC, dtype=torch.bool)
    for i in range(m):
        image, kind = int(areas.image[i]), int(areas.kind[i])
        for layer in range(n):
            for q in range(p):
                box, centre = boxes[layer, image, q].tolist(), centres[0, 0, q].tolist()
                if lies_in(box, centre, areas.boxes[i].tolist(), least):
                    expected[layer, image, q] |= areas.classes[kind]
    assert torch.equal(unjudged(boxes, centres, areas, torch.tensor([least, least])), expected)


def test_a_batch_without_areas_has_none() -> None:
    batch: dict[str, Any] = {"cls": torch.zeros(0, 1)}
    assert areas_of(batch, torch.device("cpu")) is None
    assert areas_of(with_areas(batch), torch.device("cpu")) is None


# -- the dense loss ----------------------------------------------------------------------------------------------------
def dense_predictions(images: int = 2) -> dict[str, Any]:
    feats = [torch.zeros(images, 1, SIDE // s, SIDE // s) for s in STRIDES]
    anchors = sum(f.shape[2] * f.shape[3] for f in feats)
    rng = torch.Generator().manual_seed(3)
    boxes = 0.5 + 0.4 * torch.rand(
        images, 4, anchors, generator=rng
    )  # less than a cell: who is in is where its cell is
    scores = torch.randn(images, NC, anchors, generator=rng)
    return {"boxes": boxes.requires_grad_(), "scores": scores.requires_grad_(), "feats": feats}


def objects() -> dict[str, Tensor]:
    return {
        "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.tensor([[0.0], [2.0]]),
        "bboxes": torch.tensor([[0.25, 0.25, 0.3, 0.3], [0.7, 0.7, 0.4, 0.4]]),
    }


def dense_gradient(batch: dict[str, Any], criterion: DenseCriterion | None = None) -> tuple[Tensor, Tensor]:
    preds = dense_predictions()
    loss, _ = (criterion or DenseCriterion(nc=NC, strides=STRIDES))(preds, batch)
    loss.sum().backward()
    return preds["scores"].grad.transpose(1, 2), preds["boxes"].grad


def cell_centres() -> Tensor:
    points = []
    for s in STRIDES:
        along = (torch.arange(SIDE // s) + 0.5) * s / SIDE
        y, x = torch.meshgrid(along, along, indexing="ij")
        points.append(torch.stack((x.flatten(), y.flatten()), 1))
    return torch.cat(points)


def test_background_in_an_area_is_not_taught_and_all_else_is() -> None:
    plain, plain_boxes = dense_gradient(objects())
    area = with_areas(objects(), (0, 0, 0.75, 0.25, 0.4, 0.4))
    ignored, ignored_boxes = dense_gradient(area)
    centres = cell_centres()
    inside = ((centres - torch.tensor([0.75, 0.25])).abs() < 0.2).all(1)
    assert inside.any()
    assert not inside.all()
    assert (plain[0, inside] > 0).all()
    assert (ignored[0, inside] == 0).all()
    torch.testing.assert_close(ignored[0, ~inside], plain[0, ~inside], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ignored[1], plain[1], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ignored_boxes, plain_boxes)


def test_only_the_classes_that_were_not_annotated_are_left_out() -> None:
    plain, _ = dense_gradient(objects())
    one, _ = dense_gradient(with_areas(objects(), (0, 1, 0.75, 0.25, 0.4, 0.4), kinds=(EVERY, (False, True, False))))
    inside = ((cell_centres() - torch.tensor([0.75, 0.25])).abs() < 0.2).all(1)
    assert (one[0, inside, 1] == 0).all()
    torch.testing.assert_close(one[0, :, [0, 2]], plain[0, :, [0, 2]], rtol=1e-6, atol=1e-7)


def test_an_annotated_object_in_an_area_is_learnt_as_ever() -> None:
    whole = with_areas(objects(), (0, 0, 0.5, 0.5, 1.0, 1.0), (1, 0, 0.5, 0.5, 1.0, 1.0))
    (plain, plain_boxes), (ignored, ignored_boxes) = dense_gradient(objects()), dense_gradient(whole)
    taught = ignored.abs().sum(-1) > 0
    assert taught.any(1).all()  # in both images
    torch.testing.assert_close(ignored[taught], plain[taught])
    torch.testing.assert_close(ignored_boxes, plain_boxes)


def test_a_small_area_is_widened_as_a_small_object_is() -> None:
    small = with_areas(objects(), (0, 0, 0.75, 0.25, 0.01, 0.01))
    ignored, _ = dense_gradient(small)
    inside = ((cell_centres() - torch.tensor([0.75, 0.25])).abs() < STRIDES[1] / SIDE / 2).all(1)
    assert inside.sum() >= 4
    assert (ignored[0, inside] == 0).all()


def test_a_class_loss_of_ones_own_is_spared_too() -> None:
    class Focal(DenseCriterion):
        def class_loss(self, logits: Tensor, targets: Tensor, positive: Tensor | None = None) -> Tensor:
            p = logits.sigmoid()
            return -(targets * p.log() + (1 - targets) * (1 - p).log()) * (targets - p).abs() ** 2

    ignored, _ = dense_gradient(with_areas(objects(), (0, 0, 0.75, 0.25, 0.4, 0.4)), Focal(nc=NC, strides=STRIDES))
    inside = ((cell_centres() - torch.tensor([0.75, 0.25])).abs() < 0.2).all(1)
    assert ignored.isfinite().all()
    assert (ignored[0, inside] == 0).all()


def test_areas_that_reach_a_loss_are_counted() -> None:
    both = EndToEndCriterion(*(DenseCriterion(nc=NC, strides=STRIDES) for _ in range(2)))
    preds = dense_predictions()
    both({"one2many": preds, "one2one": preds}, with_areas(objects(), (0, 0, 0.5, 0.5, 0.1, 0.1)))
    assert (both.one2many.areas_seen, both.one2one.areas_seen) == (1, 1)  # type: ignore[attr-defined]


# -- the loss of sets --------------------------------------------------------------------------------------------------
QUERIES = 6


def set_predictions() -> SetPrediction:
    """Two layers and an encoder; queries 0 and 1 are for denoising. Boxes are the same everywhere."""
    rng = torch.Generator().manual_seed(1)
    centres = torch.tensor([[0.25, 0.25], [0.8, 0.2], [0.25, 0.25], [0.8, 0.2], [0.2, 0.8], [0.7, 0.7]])
    boxes = torch.cat((centres, torch.full((QUERIES, 2), 0.2)), 1)
    return SetPrediction(
        boxes.expand(2, 2, QUERIES, 4).clone().requires_grad_(),
        torch.randn(2, 2, QUERIES, NC, generator=rng).requires_grad_(),
        boxes[2:].expand(2, QUERIES - 2, 4).clone().requires_grad_(),
        torch.randn(2, QUERIES - 2, NC, generator=rng).requires_grad_(),
        DenoisingMeta(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([0, 1]), 1, (2, QUERIES - 2)),
    )


def set_gradient(batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    preds = set_predictions()
    loss, _ = SetCriterion(nc=NC)(preds, batch)
    loss.sum().backward()
    assert preds.dec_scores.grad is not None
    assert preds.enc_scores.grad is not None
    assert preds.dec_bboxes.grad is not None
    return preds.dec_scores.grad, preds.enc_scores.grad, preds.dec_bboxes.grad


def test_no_query_in_an_area_is_taught_that_it_is_background() -> None:
    plain, plain_enc, plain_boxes = set_gradient(objects())
    dec, enc, boxes = set_gradient(with_areas(objects(), (0, 0, 0.8, 0.2, 0.3, 0.3)))
    assert (plain[:, 0, [1, 3]] != 0).all()  # a denoising query and another, whose boxes lie in the area
    assert (dec[:, 0, [1, 3]] == 0).all()
    assert (enc[0, 1] == 0).all()
    others = [0, 2, 4, 5]
    torch.testing.assert_close(dec[:, 0, others], plain[:, 0, others])
    torch.testing.assert_close(enc[0, [0, 2, 3]], plain_enc[0, [0, 2, 3]])
    torch.testing.assert_close(dec[:, 1], plain[:, 1])
    torch.testing.assert_close(boxes, plain_boxes)


def test_queries_that_answer_for_an_object_are_taught_in_an_area_too() -> None:
    plain, plain_enc, _ = set_gradient(objects())
    dec, enc, _ = set_gradient(with_areas(objects(), (0, 0, 0.5, 0.5, 1.0, 1.0)))
    torch.testing.assert_close(dec[:, 0, [0, 2]], plain[:, 0, [0, 2]])  # both at the object
    torch.testing.assert_close(enc[0, 0], plain_enc[0, 0])
    assert (dec[:, 0, [1, 3, 4, 5]] == 0).all()


@pytest.mark.parametrize("kind", ["dense", "set"])
def test_nothing_waits_for_the_device(kind: str) -> None:
    batch = with_areas(objects(), (0, 0, 0.8, 0.2, 0.3, 0.3))
    preds: Any = dense_predictions() if kind == "dense" else set_predictions()
    criterion: Any = DenseCriterion(nc=NC, strides=STRIDES) if kind == "dense" else SetCriterion(nc=NC)
    if kind == "set":
        criterion.matcher = lambda scores, boxes, labels, targets, image: image.expand(len(scores), -1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        loss, _ = criterion(preds, batch)
    assert math.prod(loss.shape) == 3
