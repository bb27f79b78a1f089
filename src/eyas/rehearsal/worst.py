"""One step of training at the user's real size: how long it takes, and how much memory."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.device import peak_memory
from eyas.rehearsal.observe import RehearsalError
from eyas.train import BaseTrainer
from eyas.train.parts import some_images

SECONDS = 8.0  # that the step may take; a larger batch is measured in part and reckoned up
SHARE = 0.7  # of the memory that is free, which may be used
SMALL = 2  # images of the first step
BY_OBJECT = ("cls", "bboxes")


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        images: in its batch.
        seconds: it took.
        memory: most bytes that the process has held so far, nan where the system does not tell.
    """

    images: int
    seconds: float
    memory: float


@dataclass(frozen=True)
class Measured:
    """What was seen of the steps.

    Attributes:
        batch, imgsz: images and px that the user's run has at a step, in one process.
        before: most bytes held before the first step.
        small, full: with few images, and with as many as there was time for.
    """

    batch: int
    imgsz: int
    before: float
    small: Step
    full: Step

    def text(self, most: int) -> str:
        """Return it for people; ``most`` objects are in one image."""
        full = f"{self.full.seconds:.1f} s and {self.full.memory / 2**30:.1f} GiB"
        head = f"{self.full.images} images of {self.imgsz} px, up to {most} objects each: {full} a step on this CPU"
        if self.full.images < self.batch:
            seconds, memory = self.reckoned()
            head += f"; {self.batch} would need about {seconds:.0f} s and {memory / 2**30:.1f} GiB"
        return f"{head}; one without any object is fine too"

    def reckoned(self) -> tuple[float, float]:
        """Return seconds and bytes of the whole batch: both grow with the images."""
        seconds = self.full.seconds * self.batch / self.full.images
        if self.full.images > self.small.images:
            each = (self.full.memory - self.small.memory) / (self.full.images - self.small.images)
        else:
            each = (self.full.memory - self.before) / self.full.images
        return seconds, self.full.memory + each * (self.batch - self.full.images)


def measure(trainer: BaseTrainer) -> Measured:
    """Build all that a trainer needs and take three steps: without objects, with few images, with all.

    Raises:
        RehearsalError: a loss is not a finite number.
    """
    with trainer.prepared():
        trainer.begin()
        trainer.start_epoch_here()
        batch = next(iter(trainer.train_loader))
        images = len(batch["img"])
        few = some_images(batch, 0, SMALL)
        before = peak_memory("cpu")
        step(
            trainer, without_objects(few), what="a batch without any object"
        )  # builds kernels, so its time says little
        small = step(trainer, few)
        count = min(images, affordable(small, before))
        full = step(trainer, some_images(batch, 0, count)) if count > SMALL else small
        return Measured(images, trainer.args.imgsz, before, small, full)


def step(trainer: BaseTrainer, batch: Any, what: str = "the fullest images") -> Step:
    """Train on one batch, with the optimizer's step."""
    trainer.step = trainer.accumulate - 1
    began = time.perf_counter()
    trainer.train_batch(batch)
    seconds = time.perf_counter() - began
    if not math.isfinite(float(trainer.loss.detach())):
        raise RehearsalError(f"the loss of {what} is {float(trainer.loss.detach())}: training would stop here.")
    return Step(len(batch["img"]), seconds, peak_memory("cpu"))


def affordable(small: Step, before: float) -> int:
    """Return how many images there is time and memory for, from a step with few."""
    by_time = SECONDS * small.images / small.seconds
    each = max(small.memory - before, 1.0) / small.images
    by_memory = SHARE * free_memory() / each
    return max(int(min(by_time, by_memory, 1e6)), SMALL)


def without_objects(batch: Any) -> Any:
    """Return a batch whose images show nothing."""
    empty = {key: batch[key][:0] for key in ("batch_idx", *BY_OBJECT)}
    return {**batch, **empty, **({"max_objects": 0} if "max_objects" in batch else {})}


def free_memory() -> float:
    """Return bytes that programs can still have; infinite where the system does not tell."""
    facts = Path("/proc/meminfo")
    if not facts.exists():
        return math.inf
    lines = dict(line.split(":") for line in facts.read_text().splitlines())
    return float(lines["MemAvailable"].split()[0]) * 1024
