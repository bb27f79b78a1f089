"""Denoising queries: objects with wrong labels and shaken boxes, which training puts beside the real queries.

They must find their object again, so the decoder learns to refine boxes before matching is stable (spec core D.6,
spec detr 1.6).

Legend: ``B`` images, ``T`` objects of the batch, ``G`` groups, ``M`` slots for objects in one half of a group, ``Qdn``
= 2 G M denoising queries of an image, ``Q`` real ones, ``C`` classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eyas.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from eyas.models.rtdetr.anchors import inverse_sigmoid
from eyas.types import DenoisingMeta

LOGIT_EPS = 1e-6  # boxes shaken to the border of the image get logits of about 14 at most


class Objects(NamedTuple):
    """Objects of a batch that may take part; ``rank`` counts those of one image from 0."""

    image: Tensor  # (T,) int64
    rank: Tensor  # (T,) int64
    target: Tensor  # (T,) int64 row of the batch's objects
    labels: Tensor  # (T,) int64
    boxes: Tensor  # (T, 4) cx cy w h in [0, 1]


class DenoisingQueries(NamedTuple):
    """What goes in front of the real queries."""

    content: Tensor  # (B, Qdn, width); 0 in empty slots
    boxes: Tensor  # (B, Qdn, 4) logits; 0 in empty slots
    blocked: Tensor  # (Qdn + Q, Qdn + Q) bool, True where a row must not look at a column
    meta: DenoisingMeta


def denoising_queries(
    batch: Mapping[str, Any],
    embedding: Tensor,
    *,
    images: int,
    queries: int,
    nc: int,
    budget: int,
    label_noise: float = 0.5,
    box_noise: float = 1.0,
) -> DenoisingQueries | None:
    """Return the denoising queries of a batch, or None if it has no object.

    A group holds every object twice: M slots with a little noise, which must find their object, then M slots with
    more, which must find nothing. Images with fewer objects than others leave slots empty. The device is not waited
    for if ``batch["max_objects"]`` is there and no larger than the budget. Randomness is torch's, of the device.

    Where an image has more objects than ``max_objects`` says, as after a callback that adds some, the rest takes no
    part: it fills no slot, and its query in the meta is -1, which means that an object found none.

    Args:
        batch: ``batch_idx`` (T,), ``cls`` (T, 1), ``bboxes`` (T, 4) cx cy w h in [0, 1], ``max_objects``, the most
            objects in one image.
        embedding: (C or more, width), the content of every class.
        images: B.
        queries: Q.
        nc: C.
        budget: about how many positive queries an image gets; of images with more objects, a random part takes part.
        label_noise: half of this share of the labels is replaced by a random one.
        box_noise: shift of a corner as a share of half the side: below this for positives, up to twice for negatives.
    """
    if not batch["cls"].shape[0]:
        return None
    objects, slots = _objects(batch, embedding, images, budget)
    if slots < 1:
        return None
    groups = max(budget // slots, 1)
    total = 2 * groups * slots
    labels = _noisy_labels(objects.labels.expand(groups, 2, -1), nc, label_noise)
    boxes = inverse_sigmoid(_noisy_boxes(objects.boxes.expand(groups, 2, -1, -1), box_noise), LOGIT_EPS)
    half = torch.arange(2 * groups, device=embedding.device).view(groups, 2, 1)
    query = half * slots + objects.rank  # (G, 2, T)
    fits = objects.rank < slots  # not a mask to index with: the device would be waited for
    spare = images * total  # a row for what does not fit, cut off again
    place = torch.where(fits, objects.image * total + query, spare).flatten()
    width = embedding.shape[1]
    content = embedding.new_zeros(spare + 1, width).index_copy(0, place, embedding[labels.flatten()])[:spare]
    logits = boxes.new_zeros(spare + 1, 4).index_copy(0, place, boxes.flatten(0, 2))[:spare]
    positive = torch.where(fits, query[:, 0], -1)  # (G, T)
    meta = DenoisingMeta(
        image=objects.image.expand(groups, -1).flatten(),
        query=positive.flatten(),
        target=objects.target.expand(groups, -1).flatten(),
        groups=groups,
        split=(total, queries),
    )
    blocked = blocked_pairs(2 * slots, groups, queries, embedding.device)
    return DenoisingQueries(content.view(images, total, width), logits.view(images, total, 4), blocked, meta)


def blocked_pairs(size: int, groups: int, queries: int, device: torch.device | None = None) -> Tensor:
    """Return who must not look at whom (size * groups + queries,) * 2: True blocks.

    Nobody sees a denoising query of another group: real queries would see the answers, and groups each other's.
    Denoising queries see the real ones. Empty slots are seen by their own group; blocking them would need a mask for
    every image and head, and their content is zero.
    """
    total = size * groups
    position = torch.arange(total + queries, device=device)
    group = torch.where(position < total, position // size, -1)
    return (group != group[:, None]) & (group >= 0)


def _objects(batch: Mapping[str, Any], like: Tensor, images: int, budget: int) -> tuple[Objects, int]:
    """Return the objects that may take part, and how many slots an image has for them."""
    image = batch["batch_idx"].to(like.device, torch.int64).view(-1)
    labels = batch["cls"].to(like.device, torch.int64).view(-1)
    boxes = batch["bboxes"].to(like.device, torch.promote_types(like.dtype, torch.float32))
    target = torch.arange(image.shape[0], device=like.device)
    counts = (image[:, None] == torch.arange(images, device=like.device)).sum(0)
    most = int(batch["max_objects"]) if "max_objects" in batch else int(counts.max())
    if most > budget:  # rare, and the only case that draws objects and may wait for the device
        target = torch.randperm(image.shape[0], device=like.device)
    rank = _ranks(image[target], counts)
    if most > budget:
        target, rank = target[rank < budget], rank[rank < budget]
    return Objects(image[target], rank, target, labels[target], boxes[target]), min(most, budget)


def _ranks(image: Tensor, counts: Tensor) -> Tensor:
    """Return the position (T,) of every object among those of its image, in the order given."""
    order = image.argsort(stable=True)
    first = counts.cumsum(0) - counts  # where the objects of each image start, once sorted
    ranks = torch.arange(image.shape[0], device=image.device) - first[image[order]]
    return torch.empty_like(ranks).scatter(0, order, ranks)


def _noisy_labels(labels: Tensor, nc: int, noise: float) -> Tensor:
    """Return labels of which a share of ``noise / 2`` is drawn anew from all classes."""
    drawn = torch.randint(nc, labels.shape, device=labels.device)
    replaced = torch.rand(labels.shape, device=labels.device) < noise / 2
    return torch.where(replaced, drawn, labels)


def _noisy_boxes(boxes: Tensor, noise: float) -> Tensor:
    """Return boxes (G, 2, T, 4) cx cy w h whose corners moved, less in the first half of a group than in the second."""
    half_side = boxes[..., 2:].repeat(1, 1, 1, 2) / 2
    sign = torch.randint(2, boxes.shape, device=boxes.device).to(boxes.dtype) * 2 - 1
    size = torch.rand(boxes.shape, device=boxes.device, dtype=boxes.dtype)
    size = torch.stack((size[:, 0], size[:, 1] + 1), 1)
    return xyxy_to_cxcywh((cxcywh_to_xyxy(boxes) + sign * size * half_side * noise).clamp(0, 1))
