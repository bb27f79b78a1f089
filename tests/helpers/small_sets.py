"""What tests of detectors of sets have in common: objects of two images, and a network whose statistics matter."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def objects() -> dict[str, Any]:
    """Return three objects, two in the first of two images, as a batch has them."""
    return {
        "batch_idx": torch.tensor([0.0, 0.0, 1.0]),
        "cls": torch.tensor([[0.0], [2.0], [1.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.6], [0.2, 0.3, 0.2, 0.2], [0.7, 0.6, 0.5, 0.7]]),
        "max_objects": 2,
    }


@torch.no_grad()
def stir(model: nn.Module, learnt: nn.Module) -> None:
    """Give a fresh model statistics that matter, and move the parameters of a part: fresh heads move no box."""
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            assert m.running_mean is not None and m.running_var is not None
            m.running_mean.uniform_(-0.2, 0.2)
            m.running_var.uniform_(0.5, 1.5)
    for p in learnt.parameters():
        p.add_(torch.randn_like(p), alpha=0.02)
