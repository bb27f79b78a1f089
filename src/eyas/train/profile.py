"""Where a training spends its time: the parts of a step, validation, saving, and which of them to look at first."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch

from eyas.data.loader import default_workers
from eyas.log import console, print_table
from eyas.nn.unwrap import unwrap_model

if TYPE_CHECKING:
    from eyas.train.trainer import BaseTrainer

WAITING, LOGGING = "waiting for data", "callbacks and log"
PARTS = (WAITING, "to the device", "forward and loss", "backward", "optimizer", LOGGING)
WARM = 5  # steps that choose kernels, allocate memory and fill the loader's queue
STEPS = 30  # that count, at most
LIMIT = 60.0  # seconds after which no further step begins
MANY = 0.2  # share of a step or an epoch from which a part is worth a word


@dataclass(frozen=True)
class Profile:
    """What was measured of a training; all times in seconds.

    Attributes:
        parts: {part of a step: median time}.
        step: median time from one step to the next, without waiting for the device between parts.
        images: in a step, over this process.
        steps: in an epoch.
        validation: one pass over the validation data; 0 where there is none.
        saving: one checkpoint.
        validations: in an epoch, on average.
        workers: processes that load.
    """

    parts: dict[str, float]
    step: float
    images: int
    steps: int
    validation: float
    saving: float
    validations: float
    workers: int

    def epoch(self) -> dict[str, float]:
        """Return how long an epoch takes: training, validation and saving."""
        return {
            "training": self.step * self.steps,
            "validation": self.validation * self.validations,
            "saving": self.saving,
        }

    def advice(self) -> list[str]:
        """Return what takes longest and what can be done about it, most important first."""
        epoch, step = self.epoch(), sum(self.parts.values())
        said = []
        if self.parts[WAITING] > MANY * step:
            said.append(f"Loading data is the bottleneck: {self.more_data()}")
        else:
            part = max(self.parts, key=lambda name: self.parts[name])
            said.append(f"The bottleneck of a step is {part}, not the data: {self.less_work(part)}")
        if epoch["validation"] > MANY * sum(epoch.values()):
            share = epoch["validation"] / sum(epoch.values())
            said.append(f"Validation takes {share:.0%} of an epoch: val_every=5 validates after every fifth.")
        if epoch["saving"] > MANY * sum(epoch.values()):
            said.append("Saving takes long: project= can name a faster disk, save=false keeps only the best weights.")
        return said

    def more_data(self) -> str:
        """Return what makes data come faster."""
        cores = os.cpu_count() or 1
        more = (
            f"more processes that load (workers={self.workers} of {cores} cores now), " if self.workers < cores else ""
        )
        return f"{more}cache=ram or cache=disk, which decode each image once, or smaller files."

    def less_work(self, part: str) -> str:
        """Return what makes a part of a step shorter."""
        if part in ("forward and loss", "backward"):
            return "a smaller imgsz or model counts most; then amp, and on a GPU a larger batch."
        if part == "optimizer":
            return "a larger batch needs fewer steps."
        return "look at callbacks and overrides of your own." if part == LOGGING else "a smaller imgsz."

    def print(self) -> None:
        """Print tables of the step and of the epoch, and the advice."""
        whole = sum(self.parts.values())
        print_table(
            f"A step of {self.images} images (parts are timed apart, so they do not overlap)",
            ["part", "ms", "share"],
            [[part, f"{seconds * 1e3:.1f}", f"{seconds / whole:.0%}"] for part, seconds in self.parts.items()],
        )
        epoch = self.epoch()
        total = sum(epoch.values())
        print_table(
            f"An epoch of {self.steps} steps: {self.images / self.step:,.0f} images/s in training",
            ["part", "s", "share"],
            [[part, f"{seconds:.1f}", f"{seconds / total:.0%}"] for part, seconds in epoch.items()],
        )
        for line in self.advice():
            console().print(line, markup=False, soft_wrap=True)


class Stopwatch:
    """Times of the parts of each step; every mark ends one.

    Args:
        device: a GPU that is waited for at each mark, so that the parts are told apart; None to wait for nothing.
    """

    def __init__(self, device: torch.device | None) -> None:
        self.device = device
        self.rows: list[dict[str, float]] = []
        self.last = 0.0

    def start(self) -> None:
        """Begin a step, at waiting for its batch."""
        self.rows.append(dict.fromkeys(PARTS, 0.0))
        self.last = time.perf_counter()

    def mark(self, part: str) -> None:
        """End a part of the step."""
        if self.device is not None:
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.rows[-1][part] += now - self.last
        self.last = now

    def medians(self) -> dict[str, float]:
        """Return the median of every part, without the first steps."""
        rows = self.rows[WARM:] or self.rows
        return {part: median(row[part] for row in rows) for part in PARTS}

    def step(self) -> float:
        """Return the median time of a step."""
        return median(sum(row.values()) for row in self.rows[WARM:] or self.rows)


def profile(trainer: BaseTrainer) -> Profile:
    """Measure steps, a validation and a checkpoint of a trainer of one process, prepared and not used afterwards."""
    trainer.begin()
    trainer.epoch, _ = trainer.first_epoch()
    trainer.start_epoch_here()
    free = measure_steps(trainer, Stopwatch(None))
    parts = measure_steps(trainer, Stopwatch(trainer.device)) if trainer.device.type == "cuda" else free
    validation = seconds_of(lambda: trainer.validator(trainer)) if trainer.validates() else 0.0
    every = trainer.args.val_every if trainer.args.val else trainer.epochs
    return Profile(
        parts=parts.medians(),
        step=free.step(),
        images=trainer.batch["img"].shape[0],
        steps=len(trainer.train_loader),
        validation=validation,
        saving=seconds_of(trainer.save_model),
        validations=1 / every,
        workers=default_workers(trainer.args.workers, trainer.device),
    )


def measure_steps(trainer: BaseTrainer, watch: Stopwatch) -> Stopwatch:
    """Train some steps under a stopwatch, beginning an epoch anew where it is too short; return the watch."""
    began = time.monotonic()
    with timed_parts(trainer, watch), console().status("  training some steps ..."):
        while len(watch.rows) < WARM + STEPS and time.monotonic() - began < LIMIT:
            watch.start()
            for step, batch in enumerate(trainer.batches()):
                watch.mark(WAITING)
                trainer.step = step
                trainer.train_batch(batch)
                watch.mark(LOGGING)
                if len(watch.rows) == WARM + STEPS or time.monotonic() - began > LIMIT:
                    return watch
                watch.start()
            watch.rows.pop()  # it waited for a batch that did not come
    return watch


@contextmanager
def timed_parts(trainer: BaseTrainer, watch: Stopwatch) -> Iterator[None]:
    """Let the model and the optimizer's step end the parts of each step."""
    model, step = unwrap_model(trainer.model), trainer.optimizer_step

    def timed_step() -> None:
        watch.mark("backward")
        step()
        watch.mark("optimizer")

    hooks = [
        model.register_forward_pre_hook(lambda module, args: watch.mark("to the device")),
        model.register_forward_hook(lambda module, args, out: watch.mark("forward and loss")),
    ]
    trainer.optimizer_step = timed_step  # type: ignore[method-assign]
    try:
        yield
    finally:
        del trainer.optimizer_step
        for hook in hooks:
            hook.remove()


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
