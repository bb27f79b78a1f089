"""Gradient clipping.

What: scales all gradients down when their joint norm exceeds a limit. When: at every optimizer step, after unscaling,
once per step under accumulation. Default: 10 (0.1 for DETR). Hazards: a limit far below the usual norm turns every step
into a fixed-length step, which hides a rate that is too high.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from eyas.callbacks.base import Callback


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients in place so that their joint L2 norm is at most ``max_norm``; returns the norm before."""
    return torch.nn.utils.clip_grad_norm_(list(parameters), max_norm=max_norm, foreach=True)


class ClipGradNorm(Callback):
    """Clip gradients by their joint norm.

    Args:
        max_norm: limit, > 0.
    """

    def __init__(self, max_norm: float = 10.0) -> None:
        if max_norm <= 0:
            raise ValueError(
                f"ClipGradNorm needs max_norm > 0, got {max_norm}; leave the callback out to clip nothing."
            )
        self.max_norm = max_norm
        self.norm: Tensor | None = None

    def adjust_gradients(self, trainer: Any, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        self.norm = clip_grad_norm(parameters, self.max_norm)
        return parameters
