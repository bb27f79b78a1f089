"""Class weights, for every classification loss alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def as_class_weights(weights: Tensor | Sequence[float], nc: int) -> Tensor:
    """Return one factor for each class as a float32 tensor (1, 1, nc).

    Raises:
        ValueError: not one for each class.
    """
    tensor = torch.as_tensor(weights, dtype=torch.float32).flatten()
    if tensor.numel() != nc:
        raise ValueError(
            f"class_weights has {tensor.numel()} values and the model {nc} classes: give one for each class"
        )
    return tensor.view(1, 1, nc)


def weight_classes(loss: Tensor, weights: Tensor | None) -> Tensor:
    """Return an unreduced classification loss (..., C) times one weight for each class (C,) or (1, ..., 1, C).

    Fits whatever gives each class a column of its own: binary cross-entropy, focal, varifocal and matchability-aware
    loss, of matched and of denoising queries. Terms where the class is wanted and where it is not are weighted alike:
    weighting only the first would raise every score of the class instead of the attention paid to it. Normalisers
    (objects, assignment weights) must not contain the weights, so that doubling one doubles exactly that class's
    gradient. None returns ``loss`` itself.
    """
    return loss if weights is None else loss * weights
