"""Constants beside a tensor, made where it lies: a copy from the host would wait for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def constants(values: Sequence[float], like: Tensor) -> Tensor:
    """Return (len(values),) of the device and dtype of another tensor."""
    return torch.stack([like.new_full((), value) for value in values])
