"""Where a network's weights lie: on which device, and in which order in its memory."""

from __future__ import annotations

import torch
from torch import nn


def place_model(model: nn.Module, device: torch.device, channels_last: bool | None = None) -> nn.Module:
    """Return the model on its device, channels last unless refused: a step of YOLO26n is 1.2 times faster so on a CPU,
    and tensor cores of a GPU want it too.

    Training and validation must do the same: in another layout, some processors add up in another order.
    """
    if channels_last is False or (channels_last is None and device.type == "mps"):
        return model.to(device)
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lag
