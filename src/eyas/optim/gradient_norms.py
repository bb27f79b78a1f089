"""Norms of gradients, each made once, for all who look at them in a step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class GradientNorms:
    """Remembers norms as long as their gradients are the same tensors, and nobody has written into them.

    What records a step looks at every gradient before the optimizer does, and clipping after it: on a CPU, reading all
    of them is a hundredth of a step.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, int, Tensor]] = {}  # id -> gradient, its version, its norm

    @torch.no_grad()
    def of(self, parameters: Iterable[nn.Parameter]) -> list[Tensor]:
        """Return the L2 norm () of each gradient, in order; parameters without one are left out."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        known = [self._known.get(id(gradient)) for gradient in gradients]
        norms = [
            entry[2]
            for gradient, entry in zip(gradients, known, strict=True)
            if entry is not None and entry[0] is gradient and entry[1] == gradient._version
        ]
        if len(norms) < len(gradients):
            norms = list(torch._foreach_norm(gradients))
            self._known |= {id(g): (g, g._version, norm) for g, norm in zip(gradients, norms, strict=True)}
        return norms

    def total(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Return the joint L2 norm () of all gradients; 0 without any."""
        norms = self.of(parameters)
        return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())

    def forget(self) -> None:
        """Let the gradients go: the optimizer has stepped."""
        self._known.clear()
