"""What a run does when a step is too much for the memory of its device: it passes each batch in smaller parts.

A batch stays what it is: its images, their augmentation, its place in the schedule. Only that it goes through the
network in two parts, or four, whose gradients add up before the optimizer steps. What differs is normalisation over a
batch, which sees the images of one part at a time, and moves its running statistics once for each.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from eyas import dist
from eyas.device import seed_step
from eyas.log import warn
from eyas.losses import SetCriterion
from eyas.nn.unwrap import unwrap_model
from eyas.run.plan import Choice, Plan
from eyas.train.divergence import Watched, batch_again
from eyas.train.parts import can_be_cut, in_parts
from eyas.train.state import position

SAID = ("out of memory", "can't allocate memory", "not enough memory", "_ALLOC_FAILED", "Cannot allocate memory")
"""What those say who know no class for it: torch on a CPU, cuBLAS, cuDNN, the system."""


Result = TypeVar("Result")


class OutOfMemory(ValueError, MemoryError):
    """A step does not fit the memory of its device, in however small parts.

    Attributes:
        passes: in how many parts it may fit, where this process could not try it; 0 where there is nothing to try.
        where: the step, and what the device has said of it.
    """

    def __init__(self, message: str, passes: int = 0, where: str = "") -> None:
        super().__init__(message)
        self.passes, self.where = passes, where


class Learner(Watched, Protocol):
    """A run that passes batches: what that needs beyond one that is watched."""

    def forward_backward(self, share: float, last: bool) -> None: ...
    def adjust(self, adjuster: str, value: Any) -> Any: ...
    def set_statistics(self) -> None: ...


class Launched(Protocol):
    """A run that is started in several processes, and started again."""

    resume_from: dict[str, Any] | None
    last: Path

    def resume_here(self, causes: Iterable[BaseException] = ()) -> None: ...


# -- a step that does not fit ------------------------------------------------------------------------------------------
def learn(trainer: Learner) -> None:
    """Pass ``trainer.batch`` forward and backward, in as many parts as the plan says, and in more where that fails.

    Raises:
        OutOfMemory: one image at a time is too much, or the step cannot be taken again.
    """
    batch, step = trainer.batch, trainer.step
    said = attempt(trainer, batch)
    while said:
        split(trainer, said)
        said = earlier_again(trainer, step) or attempt(trainer, batch)


def attempt(trainer: Learner, batch: Any) -> str:
    """Pass a batch; return what the device has said if its memory is too small, else nothing."""
    try:
        pass_in_parts(trainer, batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = first_line(error)
    else:
        return ""
    finally:
        trainer.batch = batch
    # Only here is the error gone, whose traceback holds what the pass had allocated.
    trainer.loss, trainer.loss_items = torch.zeros(()), {}
    return said


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short."""
    told = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return told or (isinstance(error, RuntimeError) and any(words in str(error) for words in SAID))


def first_line(error: BaseException) -> str:
    """Return what an error says, in a line; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def pass_in_parts(trainer: Learner, batch: Any) -> None:
    """Pass a batch forward and backward, part after part; loss and items are those of the whole afterwards."""
    if trainer.plan.passes == 1:
        trainer.forward_backward(1.0, True)
        return
    # All processes pass as many parts: in each they wait for one another, and the last batch of one may be smaller.
    count = -dist.highest(-min(trainer.plan.passes, len(batch["img"])))
    parts = list(in_parts(batch, count))
    shares, is_mean = shares_of(parts, trainer.model)
    loss, items = torch.zeros((), device=trainer.device), dict[str, Tensor]()
    for number, (part, share) in enumerate(zip(parts, shares, strict=True), 1):
        trainer.batch = part
        trainer.forward_backward(share if is_mean else 1.0, number == len(parts))
        loss = loss + trainer.loss.detach() * (share if is_mean else 1.0)
        items = {name: items.get(name, 0) + value * share for name, value in trainer.loss_items.items()}
    trainer.loss, trainer.loss_items = loss, items


def shares_of(parts: list[Any], model: nn.Module) -> tuple[list[float], bool]:
    """Return what each part counts in its batch, and whether its loss is a mean and must be weighed by that.

    A `SetCriterion` divides by the objects of what it is given, in all processes together. Other losses grow with the
    images, as they do when gradients of several batches are added up.
    """
    by_object = isinstance(getattr(unwrap_model(model), "criterion", None), SetCriterion)  # a user's may have none
    if not by_object:
        images = [len(part["img"]) for part in parts]
        return [size / sum(images) for size in images], False
    objects = dist.gather_all([len(part["cls"]) for part in parts])
    total = max(sum(map(sum, objects)), 1)
    return [max(sum(of_part), 1) / total for of_part in zip(*objects, strict=True)], True


def split(trainer: Learner, said: str) -> None:
    """Halve the parts that batches are passed in, from here to the end of the run, and say so.

    Raises:
        OutOfMemory: they cannot be halved.
    """
    images = len(trainer.batch["img"]) if can_be_cut(trainer.batch) else 0
    before = trainer.plan.passes
    where = f"step {trainer.step + 1} of epoch {trainer.epoch + 1} does not fit the memory of {trainer.device} ({said})"
    if images <= before:
        alone = "one image at a time" if images else "and its batch is not one that can be cut"
        saving = "" if trainer.args.gradient_checkpointing else ", or gradient_checkpointing=True"
        raise OutOfMemory(f"{where}, {alone}: give a smaller imgsz or model{saving}.")
    passes = min(2 * before, images)
    if trainer.world_size:
        kept = f" {trainer.kept()}." if dist.is_main() else ""
        advice = "Several processes cannot take a step again: give a smaller batch."
        raise OutOfMemory(f"{where}. {advice}{kept}", passes, where)
    told = f"{where}: batches are passed in {passes} parts from here on, of {math.ceil(images / passes)} images at most"
    why = f"step {trainer.step + 1} of epoch {trainer.epoch + 1} did not fit the memory"
    trainer.plan = passed_in(trainer.plan, passes, why)
    trainer.plan.write(trainer.save_dir / "plan.json")
    trainer.notes.append(told)
    warn(f"{told}. Their gradients add up to the same step; batch normalisation sees one part at a time.")


def passed_in(plan: Plan, passes: int, why: str) -> Plan:
    """Return a plan whose batches are passed in so many parts, or more where it says so; it tells why."""
    if passes <= plan.passes:
        return plan
    others = tuple(choice for choice in plan.decisions if choice.name != "passes")
    return replace(plan, passes=passes, decisions=(*others, Choice("passes", passes, why)))


def earlier_again(trainer: Learner, step: int) -> str:
    """Pass the batches of an optimizer step that came before one again, as what they have left is mixed with its own.

    Returns:
        What the device has said if its memory is too small for that; else nothing.
    """
    trainer.optimizer.zero_grad()
    trainer.recorder.put_back_buffers()
    release(trainer.device)
    said = ""
    for earlier in range(max(step - step % trainer.accumulate, trainer.start_step), step):
        batch = batch_again(trainer, trainer.epoch, earlier)
        if batch is None:
            warn("the batches before it in its step of the optimizer are lost: only a loader of Eyas makes them again.")
            break
        stand_at(trainer, earlier)
        trainer.batch = trainer.adjust("adjust_batch", batch)
        if said := attempt(trainer, trainer.batch):
            break
    stand_at(trainer, step)
    return said


def stand_at(trainer: Learner, step: int) -> None:
    """Let all that follows from where a run stands be as it was at a batch of this epoch."""
    trainer.step = step
    seed_step(trainer.args.seed, trainer.epoch, step, dist.rank())
    trainer.set_statistics()


def release(device: torch.device) -> None:
    """Give back what failed passes have left, to the device too."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


# -- in several processes ----------------------------------------------------------------------------------------------
def launched(trainer: Launched, start: Callable[[], Result]) -> Result:
    """Start the processes of a run and return its result; start them again where a step was too much for one of them.

    The others wait in the middle of that step, so that it cannot be taken again as in one process: all begin anew from
    what was saved last, with batches in twice as many parts.

    Raises:
        OutOfMemory: one image at a time is too much.
    """
    while True:
        try:
            return start()
        except OutOfMemory as error:
            if not error.passes:
                raise
            trainer.resume_here([error])
            held = trainer.resume_from
            begin = f"from {trainer.last}, which holds {position(held)}" if held else "from the beginning"
            warn(f"{error.where}: all processes start again {begin}, and pass batches in {error.passes} parts.")


def parts_after(causes: Iterable[BaseException]) -> int:
    """Return in how many parts batches are passed after what has ended the processes of a run before."""
    return max((cause.passes for cause in causes if isinstance(cause, OutOfMemory)), default=1)
