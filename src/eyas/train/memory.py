"""What a run does when a step is too much for the memory of its device: it passes each batch in smaller parts.

A batch stays what it is: its images, their augmentation, its place in the schedule. Only that it goes through the
network in two parts, or four, whose gradients add up before the optimizer steps. What differs is normalisation over a
batch, which sees the images of one part at a time, and moves its running statistics once for each.
"""

from __future__ import annotations

import gc
import math
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from eyas import dist
from eyas.device import seed_step
from eyas.log import warn
from eyas.losses import SetCriterion
from eyas.nn.unwrap import unwrap_model
from eyas.run.plan import Choice
from eyas.train.divergence import Watched, batch_again
from eyas.train.parts import can_be_cut, in_parts

SAID = ("out of memory", "can't allocate memory", "not enough memory", "_ALLOC_FAILED", "Cannot allocate memory")
"""What those say who know no class for it: torch on a CPU, cuBLAS, cuDNN, the system."""


class OutOfMemory(ValueError, MemoryError):
    """A step does not fit the memory of its device, in however small parts."""


class Learner(Watched, Protocol):
    """A run that passes batches: what that needs beyond one that is watched."""

    def forward_backward(self, share: float, last: bool) -> None: ...
    def adjust(self, adjuster: str, value: Any) -> Any: ...
    def set_statistics(self) -> None: ...


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
    parts = list(in_parts(batch, trainer.plan.passes))
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

    A `SetCriterion` divides by the objects of what it is given. Other losses grow with the images, as they do when
    gradients of several batches are added up.
    """
    by_object = isinstance(getattr(unwrap_model(model), "criterion", None), SetCriterion)  # a user's may have none
    sizes = [max(len(part["cls"]), 1) if by_object else len(part["img"]) for part in parts]
    total = max(sum(len(part["cls"]) for part in parts), 1) if by_object else sum(sizes)
    return [size / total for size in sizes], by_object


def split(trainer: Learner, said: str) -> None:
    """Halve the parts that batches are passed in, from here to the end of the run, and say so.

    Raises:
        OutOfMemory: they cannot be halved.
    """
    images = len(trainer.batch["img"]) if can_be_cut(trainer.batch) else 0
    before = trainer.plan.passes
    where = f"step {trainer.step + 1} of epoch {trainer.epoch + 1} does not fit the memory of {trainer.device} ({said})"
    if trainer.world_size:
        raise OutOfMemory(
            f"{where}. Several processes cannot take a step again: give a smaller batch. {trainer.kept()}."
        )
    if images <= before:
        alone = "one image at a time" if images else "and its batch is not one that can be cut"
        raise OutOfMemory(f"{where}, {alone}: give a smaller imgsz or model, or gradient_checkpointing=True.")
    passes = min(2 * before, images)
    told = f"{where}: batches are passed in {passes} parts from here on, of {math.ceil(images / passes)} images at most"
    choice = Choice("passes", passes, f"step {trainer.step + 1} of epoch {trainer.epoch + 1} did not fit the memory")
    others = tuple(decision for decision in trainer.plan.decisions if decision.name != choice.name)
    trainer.plan = replace(trainer.plan, passes=passes, decisions=(*others, choice))
    trainer.plan.write(trainer.save_dir / "plan.json")
    trainer.notes.append(told)
    warn(f"{told}. Their gradients add up to the same step; batch normalisation sees one part at a time.")


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
