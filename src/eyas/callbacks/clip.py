"""Gradient clipping, by norm and by value.

What: ``ClipGradNorm`` scales all gradients down when their joint norm exceeds a limit, ``ClipGradValue`` cuts every
element of them to a range. When: at every optimizer step, after unscaling, once per step under accumulation.
Default: norm 10 (0.1 for DETR), no limit on values.
Hazards: a limit far below the usual norm turns every step into a fixed-length step, which hides a rate that is too
high; ``grad/clipped`` in ``results.csv`` near 1 shows it. Clipping per group or by value changes the gradient's
direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn

from eyas.callbacks.base import Decision, StockCallback
from eyas.config import TrainOptions
from eyas.optim import GradientNorms
from eyas.run.overrides import is_stock, overrides
from eyas.run.protocol import Run


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float, norms: GradientNorms | None = None) -> Tensor:
    """Scale gradients in place so that their joint L2 norm is at most ``max_norm``; returns the norm before.

    ``norms`` may know what each gradient's norm is.
    """
    parameters = list(parameters)
    norm = (norms or GradientNorms()).total(parameters)
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def clip_grad_value(parameters: Iterable[nn.Parameter], max_value: float) -> Tensor:
    """Cut gradients in place to ``[-max_value, max_value]``; returns the largest absolute value before."""
    grads = [p.grad for p in parameters if p.grad is not None]
    largest = torch.nn.utils.get_total_norm(grads, norm_type=math.inf)
    for grad in grads:
        grad.clamp_(-max_value, max_value)
    return largest


def touched_by_others(trainer: Run) -> bool:
    """Whether code that is not Eyas' may change gradients before they are clipped: through ``grad.data``, unnoticed."""
    ours = {key for key, component in trainer.callbacks.by_key().items() if is_stock(type(component))}
    theirs = (hook == "adjust_gradients" and receiver not in ours for receiver, hook in trainer.callbacks.registered())
    return "optimizer_step" in overrides(type(trainer)) or any(theirs)


class ClipMeter:
    """Sums over optimizer steps, kept on the device so that no step waits for it.

    A step whose norm is not finite is left out: under float16 the scaler skips it and tries a smaller scale.
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self.steps = self.clipped = 0
        self._sums: Tensor | None = None  # (4,): steps, clipped steps, sum of norms, largest norm

    def update(self, norm: Tensor, clipped: Tensor) -> None:
        """Add one step: its norm and whether it was clipped, scalars on the device."""
        usable = norm.isfinite()
        size = torch.where(usable, norm.detach().float(), 0.0)
        row = torch.stack([usable.float(), (clipped & usable).float(), size, size])
        if self._sums is None:
            self._sums = row
        else:
            before = self._sums.to(row.device)
            self._sums = torch.cat([before[:3] + row[:3], torch.maximum(before[3:], row[3:])])

    def read(self) -> dict[str, float]:
        """Return ``steps``, ``clipped``, ``total`` and ``largest`` since the last ``close``; waits for the device."""
        values = [0.0] * 4 if self._sums is None else self._sums.tolist()
        return dict(zip(("steps", "clipped", "total", "largest"), values, strict=True))

    def close(self) -> dict[str, float]:
        """End an epoch: return its sums and add them to those of the run."""
        epoch = self.read()
        self.steps += int(epoch["steps"])
        self.clipped += int(epoch["clipped"])
        self.largest = max(self.largest, epoch["largest"])
        self._sums = None
        return epoch

    def seen(self) -> dict[str, float]:
        """Return steps, clipped steps and the largest norm of the whole run so far."""
        now = self.read()
        return {
            "steps": self.steps + int(now["steps"]),
            "clipped": self.clipped + int(now["clipped"]),
            "largest": max(self.largest, now["largest"]),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return plain values; an unfinished epoch's sums included."""
        sums = None if self._sums is None else self._sums.tolist()
        return {"steps": self.steps, "clipped": self.clipped, "largest": self.largest, "sums": sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` returned."""
        self.steps, self.clipped, self.largest = state["steps"], state["clipped"], state["largest"]
        self._sums = None if state["sums"] is None else torch.tensor(state["sums"], dtype=torch.float32)


class _Clip(StockCallback):
    """What both ways of clipping share: counting, logging, and state."""

    columns: tuple[str, str] = ("", "")  # mean size of the gradient, share of clipped steps

    def __init__(self) -> None:
        self.meter = ClipMeter()

    def on_train_epoch_end(self, trainer: Run) -> None:
        epoch = self.meter.close()
        if epoch["steps"]:
            size, share = self.columns
            trainer.epoch_log[size] = epoch["total"] / epoch["steps"]
            trainer.epoch_log[share] = epoch["clipped"] / epoch["steps"]

    def witness(self, trainer: Run) -> dict[str, object]:
        seen = self.meter.seen()
        return {self.options[0]: seen} if seen["steps"] else {}

    def state_dict(self) -> dict[str, Any]:
        return self.meter.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.meter.load_state_dict(state)


class ClipGradNorm(_Clip):
    """Clip gradients by their norm; logs ``grad/norm`` (mean before clipping) and ``grad/clipped`` (share, 0 to 1).

    Args:
        max_norm: limit, > 0.
        per_group: apply the limit to each of the optimizer's groups by itself instead of to all gradients together.

    Raises:
        ValueError: ``max_norm`` is not above 0.
    """

    decides = Decision.CLIP_NORM
    options = ("clip_grad_norm", "clip_per_group")
    columns = ("grad/norm", "grad/clipped")

    def __init__(self, max_norm: float = 10.0, per_group: bool = False) -> None:
        super().__init__()
        if not max_norm > 0:
            raise ValueError(
                f"ClipGradNorm needs max_norm > 0, got {max_norm}; leave the callback out to clip nothing."
            )
        self.max_norm = max_norm
        self.per_group = per_group
        self.groups_seen = 0
        self.is_alone = False  # whether the norms that were recorded before the step are still those of the gradients

    @classmethod
    def from_options(cls, options: TrainOptions) -> Self | None:
        """Return the component that the options ask for; None when the norm is 0.

        Raises:
            ValueError: ``clip_per_group`` without a norm to clip to.
        """
        if options.clip_grad_norm > 0:
            return cls(options.clip_grad_norm, options.clip_per_group)
        if options.clip_per_group and options.is_typed("clip_per_group"):
            raise ValueError("clip_per_group=True has no effect with clip_grad_norm=0; give a norm above 0.")
        return None

    def on_train_epoch_start(self, trainer: Run) -> None:
        self.is_alone = not touched_by_others(trainer)

    def adjust_gradients(self, trainer: Run, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        known = trainer.gradient_norms if self.is_alone else None
        if not self.per_group:
            norm = clip_grad_norm(parameters, self.max_norm, known)
            self.meter.update(norm, norm > self.max_norm)
            return parameters
        groups = [[p for p in g["params"] if p.grad is not None] for g in trainer.optimizer.param_groups]
        found = [clip_grad_norm(params, self.max_norm, known) for params in groups if params]
        if not found:
            return parameters
        norms = torch.stack(found)
        self.groups_seen = len(norms)
        self.meter.update(torch.linalg.vector_norm(norms), (norms > self.max_norm).any())
        return parameters

    def settings(self) -> dict[str, Any]:
        return {"max_norm": self.max_norm, "per_group": self.per_group}

    def describe(self, trainer: Run) -> dict[str, object]:
        return {"clipping by norm": self.limit()}

    def clip_text(self, trainer: Run) -> str:
        return f"norm {self.limit()}"

    def limit(self) -> str:
        """Say where the norm is cut off."""
        return f"{self.max_norm:g}" + (" for each group" if self.per_group else "")

    def witness(self, trainer: Run) -> dict[str, object]:
        per_group = {"clip_per_group": {"groups": self.groups_seen}} if self.groups_seen else {}
        return super().witness(trainer) | per_group


class ClipGradValue(_Clip):
    """Cut every element of the gradients; logs ``grad/max`` (mean of the largest) and ``grad/cut`` (share of steps).

    Args:
        max_value: largest absolute value that stays, > 0.

    Raises:
        ValueError: ``max_value`` is not above 0.
    """

    decides = Decision.CLIP_VALUE
    options = ("clip_grad_value",)
    columns = ("grad/max", "grad/cut")

    def __init__(self, max_value: float) -> None:
        super().__init__()
        if not max_value > 0:
            raise ValueError(
                f"ClipGradValue needs max_value > 0, got {max_value}; leave the callback out to clip nothing."
            )
        self.max_value = max_value

    @classmethod
    def from_options(cls, options: TrainOptions) -> Self | None:
        """Return the component that the options ask for; None when the value is 0."""
        return cls(options.clip_grad_value) if options.clip_grad_value > 0 else None

    def adjust_gradients(self, trainer: Run, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        largest = clip_grad_value(parameters, self.max_value)
        self.meter.update(largest, largest > self.max_value)
        return parameters

    def settings(self) -> dict[str, Any]:
        return {"max_value": self.max_value}

    def describe(self, trainer: Run) -> dict[str, object]:
        return {"clipping by value": f"{self.max_value:g}"}

    def clip_text(self, trainer: Run) -> str:
        return f"value {self.max_value:g}"
