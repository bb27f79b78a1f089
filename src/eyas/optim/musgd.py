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


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return the nearest semi-orthogonal matrix, roughly, of each of ``(n, rows, columns)`` matrices.

    In bfloat16 on a GPU, as Muon does; a CPU without bfloat16 units is faster in float32. All at once, and with sums
    inside the products: three kernels a round for all matrices of one shape, not six for each of them.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    tall = x.size(1) > x.size(2)
    x = x.mT if tall else x
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


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
            if not params:
                continue
            if group.get("param_group") == "muon":
                self._muon_part(params, group)
            self._sgd_part(params, group)
        return loss

    def _muon_part(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """``b = m b + (1 - m) g``; step along the orthogonalised Nesterov look-ahead."""
        momentum = group["momentum"]
        grads: Any = [p.grad for p in params]
        buffers = self._kept(params, "muon_buffer")
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        ahead = torch._foreach_lerp(grads, buffers, momentum)
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for p, matrix in zip(params, (update.flatten(1) for update in ahead), strict=True):
            alike.setdefault((matrix.size(0), matrix.size(1)), []).append((p, matrix))
        for pairs in alike.values():
            updates = orthogonalise(torch.stack([matrix for _, matrix in pairs]))
            for (p, _), update in zip(pairs, updates.unbind(), strict=True):
                scale = max(1.0, p.size(-2) / p.size(-1)) ** 0.5
                p.add_(update.reshape(p.shape), alpha=-group["lr"] * group["muon"] * scale)

    def _sgd_part(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """``g' = g + wd p``; ``b = m b + g'``; ``p -= lr (g' + m b)``, over all tensors of the group at once."""
        momentum = group["momentum"]
        buffers = self._kept(params, "momentum_buffer")
        grads: Any = [p.grad for p in params]
        if group["weight_decay"]:
            grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, grads)
        torch._foreach_add_(
            params, torch._foreach_add(grads, buffers, alpha=momentum), alpha=-group["lr"] * group["sgd"]
        )

    def _kept(self, params: list[Tensor], name: str) -> list[Tensor]:
        """Return what is kept of each parameter under a name; zeros at first."""
        for p in params:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in params]
