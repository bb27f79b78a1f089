"""MuSGD: SGD with momentum, plus an orthogonalised update for matrices and filters (spec core B.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

# Newton-Schulz coefficients of Muon (Jordan et al. 2024); five rounds bring singular values near 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def orthogonalise(matrix: Tensor) -> Tensor:
    """Return the nearest semi-orthogonal matrix, roughly, of a ``(rows, columns)`` matrix.

    In bfloat16 on a GPU, as Muon does; a CPU without bfloat16 units is faster in float32.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    x = x / (x.norm() + 1e-7)
    tall = x.size(0) > x.size(1)
    x = x.T if tall else x
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class MuSGD(Optimizer):
    """SGD with Nesterov momentum; groups labelled ``param_group="muon"`` also take an orthogonalised step.

    Args:
        params: parameters or groups. A group whose ``param_group`` is ``"muon"`` holds tensors of 2 or 4 dimensions.
        lr: learning rate.
        momentum: momentum of both parts, in [0, 1).
        weight_decay: decay of the SGD part.
        muon: factor of the orthogonalised step.
        sgd: factor of the SGD step.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        muon: float = 0.2,
        sgd: float = 1.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "muon": muon, "sgd": sgd}
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; returns the closure's loss when one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if group.get("param_group") == "muon":
                for p in params:
                    self._muon_part(p, group)
            if params:
                self._sgd_part(params, group)
        return loss

    def _muon_part(self, p: Tensor, group: dict[str, Any]) -> None:
        """``b = m b + (1 - m) g``; step along the orthogonalised Nesterov look-ahead."""
        grad, momentum = p.grad, group["momentum"]
        assert grad is not None
        state = self.state[p]
        if "muon_buffer" not in state:
            state["muon_buffer"] = torch.zeros_like(p)
        buffer = state["muon_buffer"].lerp_(grad, 1 - momentum)
        update = orthogonalise(grad.lerp(buffer, momentum).flatten(1))
        scale = max(1.0, grad.size(-2) / grad.size(-1)) ** 0.5
        p.add_(update.reshape(p.shape).to(p.dtype), alpha=-group["lr"] * group["muon"] * scale)

    def _sgd_part(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """``g' = g + wd p``; ``b = m b + g'``; ``p -= lr (g' + m b)``, over all tensors of the group at once."""
        momentum = group["momentum"]
        buffers = []
        for p in params:
            state = self.state[p]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p)
            buffers.append(state["momentum_buffer"])
        grads: Any = [p.grad for p in params]
        if group["weight_decay"]:
            grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, grads)
        torch._foreach_add_(
            params, torch._foreach_add(grads, buffers, alpha=momentum), alpha=-group["lr"] * group["sgd"]
        )
