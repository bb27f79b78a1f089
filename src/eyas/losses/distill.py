"""Losses of a student that looks at a teacher: how alike their maps are, and their answers.

Legend: ``B`` images, ``C`` classes, ``A`` anchors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from eyas.boxes import distances_to_boxes
from eyas.losses.elementwise import bce_loss, ciou_loss

BOX, CLS = 7.5, 0.5  # gains of the dense loss, whose terms these stand beside
LEAST = 1e-6  # weight of a batch in which a teacher sees nothing


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 - cosine () of maps (B, D, h, w), the mean over all pixels: 0 for parallel vectors, 1 for orthogonal."""
    with torch.autocast(student.device.type, enabled=False):
        return (1 - cosine_similarity(student.float(), teacher.float(), dim=1)).mean()


def dense_distillation(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Tensor:
    """Return how far the answers of one branch are from a teacher's (), per image.

    Classes: the divergence of the teacher's probability of every class from the student's. Boxes: 1 - CIoU, of each
    anchor as much as the teacher believes in it. Both are divided by the sum of that belief, and weigh as in
    `eyas.losses.DenseCriterion`.

    Args:
        student: raw predictions {"boxes" (B, 4, A) in cells, "scores" (B, C, A) logits}.
        teacher: the same of the teacher.

    Raises:
        ValueError: they have other anchors or classes, or boxes as distributions.
    """
    for name in ("boxes", "scores"):
        if student[name].shape != teacher[name].shape:
            raise ValueError(
                f"student and teacher differ in their {name}: {tuple(student[name].shape[1:])} and "
                f"{tuple(teacher[name].shape[1:])}. They must have the same classes, strides and form of boxes."
            )
    with torch.autocast(student["scores"].device.type, enabled=False):
        scores, wanted = student["scores"].float(), teacher["scores"].float().sigmoid()
        boxes, target = (around_a_point(x["boxes"].float().transpose(1, 2)) for x in (student, teacher))
        belief = wanted.amax(1)  # (B, A)
        divergence = bce_loss(scores, wanted) - bce_loss(torch.logit(wanted, 1e-6), wanted)
        total = belief.sum().clamp(min=LEAST)
        return (CLS * divergence.sum() + BOX * (ciou_loss(boxes, target) * belief).sum()) / total


def around_a_point(distances: Tensor) -> Tensor:
    """Return corner boxes (..., 4) of distances (..., 4) around 0: where that lies does not matter to an overlap."""
    return distances_to_boxes(distances, torch.zeros_like(distances[..., :2]))
