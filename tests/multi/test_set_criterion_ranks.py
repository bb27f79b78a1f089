"""Two processes with uneven shares, or one of them without objects, have together the loss of one process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eyas import dist
from eyas.losses import SetCriterion
from eyas.train.memory import pass_in_parts
from eyas.types import DenoisingMeta, SetPrediction

NC, LAYERS, QUERIES, DN = 3, 2, 6, 8
SHARES = (slice(0, 3), slice(3, 4))  # images of each process: three and one


def whole(objects: tuple[int, ...], dn: bool) -> tuple[SetPrediction, dict[str, Tensor]]:
    """Return predictions and objects of four images; with ``dn``, one denoising group of at most four objects."""
    rng = torch.Generator().manual_seed(0)
    width = QUERIES + (DN if dn else 0)
    image = torch.arange(4).repeat_interleave(torch.tensor(objects))
    total = len(image)
    place = torch.cat([torch.arange(n) for n in objects])
    meta = DenoisingMeta(image, place, torch.arange(total), 1, (DN, QUERIES)) if dn else None
    preds = SetPrediction(
        0.05 + 0.5 * torch.rand(LAYERS, 4, width, 4, generator=rng),
        torch.randn(LAYERS, 4, width, NC, generator=rng),
        0.05 + 0.5 * torch.rand(4, QUERIES, 4, generator=rng),
        torch.randn(4, QUERIES, NC, generator=rng),
        meta,
    )
    batch = {
        "batch_idx": image.float(),
        "cls": torch.randint(NC, (total, 1), generator=rng).float(),
        "bboxes": 0.05 + 0.5 * torch.rand(total, 4, generator=rng),
    }
    return preds, batch


def share(preds: SetPrediction, batch: dict[str, Tensor], images: slice) -> tuple[SetPrediction, dict[str, Tensor]]:
    """Return the part of some images; a part without objects has no denoising queries."""
    image = batch["batch_idx"].long()
    own = (image >= images.start) & (image < images.stop)
    mine = {key: value[own] for key, value in batch.items()}
    mine["batch_idx"] = mine["batch_idx"] - images.start
    boxes, scores, meta = preds.dec_bboxes[:, images], preds.dec_scores[:, images], preds.dn_meta
    if meta is not None and own.any():
        rows = torch.arange(int(own.sum()))
        meta = meta._replace(image=meta.image[own] - images.start, query=meta.query[own], target=rows)
    elif meta is not None:
        boxes, scores, meta = boxes[:, :, DN:], scores[:, :, DN:], None
    return SetPrediction(boxes, scores, preds.enc_bboxes[images], preds.enc_scores[images], meta), mine


def run(preds: SetPrediction, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Return loss, items, terms and gradients, in float64."""
    leaves = [x.clone().requires_grad_() for x in preds[:4]]
    criterion = SetCriterion(nc=NC, class_weights=[1, 2, 0.5])
    loss, items = criterion(SetPrediction(*leaves, preds.dn_meta), batch)
    loss.sum().backward()
    with torch.no_grad():
        alone, _ = criterion(preds, batch)  # in validation every process is alone
    return {
        "loss": loss.detach().double(),
        "items": torch.stack(list(items.values())).double(),
        "terms": {k: v.detach().double() for k, v in criterion.all_terms(preds, batch).items()},
        "gradients": [x.grad for x in leaves],
        "alone": alone.double(),
    }


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("objects", [(4, 0, 1, 2), (1, 3, 2, 0), (0, 0, 0, 1), (0, 0, 0, 0)])
@pytest.mark.parametrize("dn", [False, True])
def test_shares_add_up(in_ranks: Any, objects: tuple[int, ...], dn: bool) -> None:
    dn = dn and sum(objects) > 0
    preds, batch = whole(objects, dn)

    def work() -> dict[str, Any]:
        return run(*share(preds, batch, SHARES[dist.rank()]))

    parts = in_ranks(work)
    expected = run(preds, batch)
    for images, part in zip(SHARES, parts, strict=True):
        assert_equal(part["alone"], run(*share(preds, batch, images))["loss"])
    with_dn = [part for part, images in zip(parts, SHARES, strict=True) if sum(objects[images]) > 0]
    if dn and len(with_dn) == 1:  # the other process makes no denoising queries, which would all be background
        assert_equal(sum_of(parts, "loss"), sum(part for part in denoised_apart(preds, batch, objects)))
        return
    assert_equal(sum_of(parts, "loss"), expected["loss"])
    assert_equal(sum_of(parts, "items") / 2, expected["items"])
    for name, value in expected["terms"].items():
        assert_equal(parts[0]["terms"][name] + parts[1]["terms"][name], value)
    for i, gradient in enumerate(expected["gradients"]):
        assert_equal(torch.cat([part["gradients"][i] for part in parts], -3), gradient)


class InParts:
    """Passes a process's batch image by image, as where memory is short."""

    def __init__(self, preds: SetPrediction, batch: dict[str, Tensor], images: int) -> None:
        self.plan, self.device, self.model = SimpleNamespace(passes=images), torch.device("cpu"), nn.Module()
        self.model.criterion = SetCriterion(nc=NC)
        self.preds, self.batch = preds, batch | {"img": torch.zeros(images, 3, 8, 8)}
        self.loss, self.loss_items = torch.zeros(()), dict[str, Tensor]()
        self.weighed, self.image = 0.0, 0

    def forward_backward(self, weight: float, last: bool) -> None:
        image, pred = slice(self.image, self.image + 1), self.preds
        boxes, scores = pred.dec_bboxes[:, image], pred.dec_scores[:, image]
        own = SetPrediction(boxes, scores, pred.enc_bboxes[image], pred.enc_scores[image], None)
        loss, self.loss_items = self.model.criterion(own, self.batch)
        self.loss, self.image = loss.sum(), self.image + 1
        self.weighed += self.loss.item() * weight


@pytest.mark.parametrize("objects", [(4, 0, 1, 2), (1, 3, 2, 0), (0, 0, 0, 0)])
def test_parts_of_the_batches_of_several_processes_add_up(in_ranks: Any, objects: tuple[int, ...]) -> None:
    """The divisor of each part are its objects in both processes, which differ from part to part."""
    preds, batch = whole(objects, dn=False)

    def work() -> float:
        images = slice(2 * dist.rank(), 2 * dist.rank() + 2)
        part = InParts(*share(preds, batch, images), images=2)
        pass_in_parts(part, part.batch)  # type: ignore[arg-type]  # it needs no more of a run
        return part.weighed

    expected, _ = SetCriterion(nc=NC)(preds, batch)
    assert sum(in_ranks(work)) == pytest.approx(expected.sum().item(), rel=1e-5)


def sum_of(parts: list[dict[str, Any]], key: str) -> Tensor:
    return parts[0][key] + parts[1][key]


def denoised_apart(preds: SetPrediction, batch: dict[str, Tensor], objects: tuple[int, ...]) -> list[Tensor]:
    """Return the losses of matched queries of all images, and of denoising queries of the images that have them."""
    matched = preds._replace(
        dec_bboxes=preds.dec_bboxes[:, :, DN:], dec_scores=preds.dec_scores[:, :, DN:], dn_meta=None
    )
    images = SHARES[0] if sum(objects[SHARES[0]]) else SHARES[1]
    own = run(*share(preds, batch, images))["terms"]
    names = ("loss_giou", "loss_class", "loss_bbox")
    denoised = torch.stack([own[name + "_dn"] + own[name + "_aux_dn"] for name in names])
    return [run(matched, batch)["loss"], denoised]
