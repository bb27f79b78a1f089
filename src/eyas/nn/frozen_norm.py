"""Batch normalisation whose scale, shift and statistics are all constants, as in fine-tuning with small batches.

State-dict keys are those of ``BatchNorm2d`` without ``num_batches_tracked``, so weights of one fit the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm


class FrozenBatchNorm2d(nn.Module):
    """Normalise (B, C, H, W) with given statistics: nothing here is trained, averaged or synchronised.

    Starts as the identity (but for ``eps``), so it is of use only in a network that starts from trained weights.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = channels
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the state of an ordinary batch normalisation too: how many batches it saw means nothing here."""
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Return what ``print`` shows between the brackets."""
        return f"{self.num_features}, eps={self.eps}"


@torch.no_grad()
def freeze_norms(model: nn.Module) -> int:
    """Replace every ``BatchNorm2d`` below ``model`` by a `FrozenBatchNorm2d` with its values; return how many."""
    named = ((module, name, child) for module in model.modules() for name, child in module.named_children())
    places = [(parent, name, child) for parent, name, child in named if isinstance(child, nn.BatchNorm2d)]
    for parent, name, child in places:
        values: dict[str, Tensor] = child.state_dict()
        fresh = FrozenBatchNorm2d(child.num_features, eps=child.eps).to(values["weight"].device, values["weight"].dtype)
        for key, value in fresh.state_dict().items():
            value.copy_(values[key])
        setattr(parent, name, fresh.train(child.training))
    return len(places)
