"""Moving averages of a model's weights and statistics."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from eyas.nn.unwrap import unwrap_model


class ModelEMA:
    """A copy of the model that follows it slowly: ``ema += (1 - d(updates)) (model - ema)`` (spec core B.9).

    ``d(u) = decay (1 - exp(-u / tau))`` lets the copy follow closely at first. torch's ``AveragedModel`` is not used
    because it asks the device for its counter in every step, which stops a GPU's queue.

    Args:
        model: the live model; wrappers are looked through.
        decay: final decay, in [0, 1).
        tau: updates over which the decay ramps up; fit it to the run (a tau of 2000 in a run of 1000 updates averages
            almost nothing).
        updates: updates already made, when resuming.

    Attributes:
        ema: the averaged model.
        trusted: whether it is used without asking if the live weights are better.
    """

    trusted = True

    def __init__(self, model: nn.Module, decay: float = 0.9999, tau: float = 2000.0, updates: int = 0) -> None:
        self.ema = copy.deepcopy(unwrap_model(model)).eval().requires_grad_(False)
        self.updates = updates
        self.tau = tau
        self.decay_limit = decay
        self._pairs: tuple[list[Tensor], list[Tensor]] | None = None
        self._source: nn.Module | None = None

    def decay(self, updates: int) -> float:
        """Return the decay after so many updates."""
        return self.decay_limit * (1 - math.exp(-updates / self.tau))

    def summary(self) -> str:
        """Say in a word how it averages."""
        return f"{self.decay_limit:g}"

    def effects(self) -> dict[str, object]:
        """Return how it averages, by option; nothing while nobody has moved it."""
        return {"ema_decay": self.decay_limit, "ema_tau": self.tau} if self.updates else {}

    @torch.no_grad()
    def restart(self, model: nn.Module) -> None:
        """Forget the past: be equal to ``model`` now, and average from here."""
        torch._foreach_copy_(*self._tensors(unwrap_model(model)))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move one step towards ``model``; parameters and floating buffers alike."""
        self.updates += 1
        averaged, live = self._tensors(unwrap_model(model))
        torch._foreach_lerp_(averaged, live, 1 - self.decay(self.updates))

    def _tensors(self, source: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """Pair up floating tensors once: walking a thousand names in every step costs more than averaging them."""
        if self._pairs is None or self._source is not source:
            mine, theirs = self.ema.state_dict(), source.state_dict()
            keys = [k for k, v in mine.items() if v.is_floating_point()]
            self._pairs = [mine[k] for k in keys], [theirs[k] for k in keys]
            self._source = source
        return self._pairs


class PowerAverage(ModelEMA):
    """A copy that looks back over a share of the run so far, however long that is.

    ``ema += (1 - (1 - 1/u)^g) (model - ema)`` gives the weights of step k of u the part ``(k^g - (k-1)^g) / u^g`` in
    the average: none is of the random start, and their mean age is ``u / (g + 1)`` steps for long runs (the power
    function average of Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", 3.1).
    An exponential one has a window of its own, which in a short run is most of the run.

    Args:
        model: the live model; wrappers are looked through.
        share: mean age of what is averaged, as a share of the steps so far, in (0, 0.5]; 0.5 weighs all steps alike.
        updates: updates already made, when resuming.
    """

    def __init__(self, model: nn.Module, share: float, updates: int = 0) -> None:
        super().__init__(model, updates=updates)
        self.share = share
        self.trusted = False

    def decay(self, updates: int) -> float:
        """Return the decay after so many updates, at least one."""
        return (1 - 1 / updates) ** (1 / self.share - 1)

    def summary(self) -> str:
        """Say in a word how it averages."""
        return f"{self.share:.0%} of the run"

    def effects(self) -> dict[str, object]:
        """Return how it averages, by option; nothing while nobody has moved it."""
        return {"ema_share": self.share} if self.updates else {}
