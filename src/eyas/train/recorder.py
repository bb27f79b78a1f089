"""The flight recorder of a run: the last steps, and what reproduces the one that went wrong.

Every step leaves its images, losses and norms of gradients, as tensors on the device, in a ring of 50. Whether they are
finite is told by one more number: on a CPU it is read at once, on a GPU it comes when the device gets there, without a
wait. Where it says no, ``nan_step_<n>/`` is written into the run folder, and ``eyas replay`` takes that step again.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from eyas.checkpoint import save_checkpoint
from eyas.files import replacing, write_atomic
from eyas.optim import GradientNorms
from eyas.train.nonfinite import Origin

RING = 50  # steps
MOST_SKIPPED = 5  # of the steps in the ring; more are no accident
MOST_ROLLBACKS = 3  # of a run
CHECKPOINT, BATCH, REPORT = "before.pt", "batch.npz", "report.json"


@dataclass
class Step:
    """One batch, as it was trained on.

    Attributes:
        epoch, step: 0-based.
        files: its images.
        loss: what was differentiated.
        losses: its terms by name.
        labels: whether its labels are finite, by their names in the batch.
        norms: of the gradients of each group of parameters, where the optimizer stepped after it; scaled as they were.
        skipped: whether the optimizer did not step for it.
    """

    epoch: int
    step: int
    files: Sequence[str]
    loss: Tensor
    losses: Mapping[str, Tensor]
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    norms: dict[str, Tensor] = field(default_factory=dict)
    skipped: bool = False

    def finite(self, *, gradients: bool) -> Tensor:
        """Return whether all of it is, (), on the device."""
        values = [self.loss, *self.losses.values(), *(self.norms.values() if gradients else ())]
        finite = torch.stack([value.detach().float().reshape(()) for value in values]).isfinite().all()
        return torch.stack([finite, *self.labels.values()]).all()

    def told(self) -> dict[str, Any]:
        """Return it as plain values; waits for the device. What is no number is a text."""
        return {
            "epoch": self.epoch + 1,
            "step": self.step + 1,
            "images": list(self.files),
            "loss": plain(self.loss),
            "losses": {name: plain(value) for name, value in self.losses.items()},
            "gradient_norms": {name: plain(value) for name, value in self.norms.items()},
            "skipped": self.skipped,
        }


def plain(value: Tensor) -> float | str:
    """Return a tensor of one value for JSON, which knows no nan."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


class Recorder:
    """Remembers the last steps, and says which of them is not finite.

    Args:
        at_once: whether every step is to be known before the optimizer takes it. That is free on a CPU, and a wait for
            the device in each step on a GPU; without it, a step is known some steps later.
    """

    def __init__(self, *, at_once: bool) -> None:
        self.at_once = at_once
        self.steps: deque[Step] = deque(maxlen=RING)
        self.labels: dict[str, Tensor] = {}  # of the latest batch
        self._pending: deque[tuple[Step, Tensor, torch.cuda.Event]] = deque()
        self._network: nn.Module | None = None
        self._buffers: tuple[list[Tensor], list[Tensor]] = [], []  # of that network, and as they were

    def keep_buffers(self, network: nn.Module) -> None:
        """Remember statistics of normalisation as they are before a step that may not be taken."""
        if network is not self._network:  # walking through hundreds of modules costs more than copying what they hold
            live = [buffer.detach() for buffer in network.buffers() if buffer.is_floating_point()]
            self._network, self._buffers = network, (live, [torch.empty_like(buffer) for buffer in live])
        live, kept = self._buffers
        if live:
            torch._foreach_copy_(kept, live)

    def put_back_buffers(self) -> None:
        """Give the statistics back that `keep_buffers` has seen."""
        live, kept = self._buffers
        if live:
            torch._foreach_copy_(live, kept)

    def add(self, step: Step) -> bool:
        """Note a batch whose losses are known; return False if they are known not to be finite."""
        self.steps.append(step)
        return not self.at_once or bool(step.finite(gradients=False))

    def add_gradients(self, optimizer: Optimizer, norms: GradientNorms, *, scaled: bool) -> Step | None:
        """Note the gradients that the latest batch has led to; return the first step that is known not to be finite.

        ``scaled`` ones of float16 may be infinite: the scaler answers that.
        """
        step = self.steps[-1]
        step.norms = norms_by_group(optimizer, norms)
        return self.known_by_now(step, step.finite(gradients=not scaled))

    def known_by_now(self, step: Step, finite: Tensor) -> Step | None:
        """Ask for the answer to whether a step is finite; return the first step of which the answer is no by now."""
        if finite.device.type != "cuda" or self.at_once:
            return None if bool(finite) else step
        held = torch.empty((), dtype=torch.bool, pin_memory=True)
        held.copy_(finite, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending.append((step, held, event))
        return self.first_unsound(wait=False)

    def first_unsound(self, *, wait: bool) -> Step | None:
        """Return the first step that is known by now not to be finite; ``wait`` for all that were noted."""
        while self._pending:
            step, held, event = self._pending[0]
            if wait:
                event.synchronize()
            elif not event.query():
                return None
            self._pending.popleft()
            if not bool(held):
                return step
        return None

    def skipped(self) -> int:
        """Return how many of the last steps the optimizer did not take."""
        return sum(step.skipped for step in self.steps)


def norms_by_group(optimizer: Optimizer, norms: GradientNorms) -> dict[str, Tensor]:
    """Return the norm of the gradients of each group of parameters that has any, () on the device."""
    return {
        f"{i} {group.get('param_group', '')}".strip(): norms.total(group["params"])
        for i, group in enumerate(optimizer.param_groups)
        if any(p.grad is not None for p in group["params"])
    }


def write_record(
    folder: Path,
    *,
    report: Mapping[str, Any],
    steps: Sequence[Step],
    batch: Mapping[str, Any],
    checkpoint: Callable[[], dict[str, Any]] | Path | None,
    origin: Origin | None,
) -> None:
    """Write what reproduces a step.

    Args:
        folder: made if it is not there.
        report: plain values: where the run stood, and how it computes.
        steps: the last ones.
        batch: as the network saw it.
        checkpoint: makes the state before the step; or a file of an earlier state; or None if there is none.
        origin: what was found of the step, if it was looked for.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: value.detach().cpu().float().numpy() for name, value in batch.items() if is_real(value)}
    arrays |= {name: value.cpu().numpy() for name, value in batch.items() if is_whole(value)}
    with replacing(folder / BATCH) as file:
        np.savez_compressed(file, **arrays)
    if isinstance(checkpoint, Path):
        shutil.copyfile(checkpoint, folder / CHECKPOINT)
    elif checkpoint is not None:
        save_checkpoint(checkpoint(), folder / CHECKPOINT)
    others = {name: value for name, value in batch.items() if isinstance(value, int)}
    told = {**report, "origin": asdict(origin) if origin is not None else None, "batch": others}
    text = json.dumps({**told, "steps": [step.told() for step in steps]}, indent=1, allow_nan=False)
    write_atomic(folder / REPORT, text.encode("utf-8", "backslashreplace"))


def is_real(value: object) -> bool:
    """Whether it is a tensor of floating numbers."""
    return isinstance(value, Tensor) and value.is_floating_point()


def is_whole(value: object) -> bool:
    """Whether it is a tensor of other numbers."""
    return isinstance(value, Tensor) and not value.is_floating_point()
