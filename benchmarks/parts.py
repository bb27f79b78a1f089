"""What can be measured of a training: step, data path, loop, validation, memory, operators, start-up.

Everything is measured through the parts that a training uses.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import Any, Self

import cv2
import torch
import tracing

from eyas import Callback
from eyas.config.resolve import parse_cli
from eyas.data.dataset import TrainDataset
from eyas.data.index import ImageIndex
from eyas.data.loader import build_train_loader
from eyas.data.store import ImageStore
from eyas.families import family_of
from eyas.losses import SetCriterion
from eyas.models import model_table
from eyas.train import DetectionTrainer

Row = dict[str, float]  # {"what, unit": number}
PHASES = ("forward", "loss", "backward", "optimizer")
IN_A_ROW = 10  # steps of a GPU that are timed as one: as in a training, the host runs ahead of it


def trainer_class(model: str) -> type[DetectionTrainer]:
    """Return the trainer of the model's family."""
    return family_of(model_table(model)).trainer


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long ``work()`` takes, on the device too."""
    synchronise(device)
    begin = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - begin


class TimedMatcher:
    """Calls a criterion's matcher and adds up the seconds, those of its wait for the device included."""

    def __init__(self, matcher: Callable[..., torch.Tensor], device: torch.device) -> None:
        self.matcher = matcher
        self.device = device
        self.seconds = 0.0

    def __call__(self, *arguments: torch.Tensor) -> torch.Tensor:
        synchronise(self.device)  # what the device still computes of the forward pass is no matching
        begin = time.perf_counter()
        query = self.matcher(*arguments)
        synchronise(self.device)
        self.seconds += time.perf_counter() - begin
        return query


class Step:
    """One training step of a trainer that stands in its first epoch, whole and in four phases.

    The batch lies on the device; what the trainer does with it there (division, ``multi_scale``) is a part of the
    whole step and of no phase. The phases call little of a trainer, so that older revisions can be measured.

    Attributes:
        steps: how many are timed as one.
    """

    def __init__(self, trainer: DetectionTrainer) -> None:
        self.trainer = trainer
        self.steps = IN_A_ROW if trainer.device.type == "cuda" else 1
        trainer.accumulate = 1  # every step is one of the optimizer too
        batch = next(iter(trainer.train_loader))
        self.raw: Any = {k: v.to(trainer.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}

    @property
    def images(self) -> int:
        return len(self.raw["img"])

    def prepare(self) -> None:
        """Make the batch of the next step, and set what the step depends on."""
        trainer = self.trainer
        trainer.step = (trainer.step + 1) % len(trainer.train_loader)
        trainer.set_rates()
        self.batch = trainer.preprocess_batch(self.raw)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.trainer.device.type, dtype=self.trainer.amp_dtype, enabled=self.trainer.amp)

    def forward(self) -> None:
        with self.autocast():
            self.predictions = self.trainer.model.predict_batch(self.batch)

    def loss(self) -> None:
        with self.autocast():
            self.value = self.trainer.model.loss(self.batch, self.predictions)[0].sum()

    def backward(self) -> None:
        self.trainer.scaler.scale(self.value).backward()

    def optimizer(self) -> None:
        self.trainer.optimizer_step()

    def whole(self) -> None:
        """Train on the batch as the loop does."""
        self.trainer.step = (self.trainer.step + 1) % len(self.trainer.train_loader)
        self.trainer.train_batch(self.raw)

    def in_a_row(self) -> None:
        """Take as many steps as are timed as one."""
        for _ in range(self.steps):
            self.whole()

    def time_whole(self) -> float:
        """Return the seconds of a step."""
        return seconds(self.in_a_row, self.trainer.device) / self.steps

    def time_phases(self) -> Row:
        """Return the seconds of each phase, each waited for, and of ``matching``, a part of the loss."""
        device, criterion = self.trainer.device, self.trainer.model.criterion
        matcher = TimedMatcher(criterion.matcher, device) if isinstance(criterion, SetCriterion) else None
        if matcher is None:
            return {phase: seconds(getattr(self, phase), device) for phase in PHASES}
        criterion.matcher = matcher
        taken = {phase: seconds(getattr(self, phase), device) for phase in PHASES}
        criterion.matcher = matcher.matcher  # the whole step does not wait for it
        return taken | {"matching": matcher.seconds}


@dataclass
class Timing(Callback):
    """Notes, per epoch, seconds of training, seconds of waiting for batches, and images."""

    epochs: list[Row] = field(default_factory=list)

    def on_train_epoch_start(self, trainer: Any) -> None:
        synchronise(trainer.device)
        self.epochs.append({"waiting": 0.0, "images": 0})
        self.began = self.asked = time.perf_counter()

    def on_train_batch_start(self, trainer: Any) -> None:
        self.epochs[-1]["waiting"] += time.perf_counter() - self.asked

    def on_train_batch_end(self, trainer: Any) -> None:
        self.epochs[-1]["images"] += len(trainer.batch["img"])
        self.asked = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any) -> None:
        synchronise(trainer.device)
        ended = time.perf_counter()
        self.epochs[-1] |= {"seconds": ended - self.began, "ended": ended}


class Bench:
    """The parts of one setting; what they need is made when it is first needed.

    Every part returns a row for each of its repetitions.

    Args:
        options: of the training, as typed; ``model`` and ``batch`` are among them.
        batches: of a pass over the data path; an epoch of the loop has three times as many.
        epochs: of the loop.
        folder: for the folders of runs.
    """

    def __init__(self, options: dict[str, str], batches: int, epochs: int, folder: Path) -> None:
        self.stack = ExitStack()
        quiet = {"plots": "false", "verbose": "false", "project": str(folder)}
        self.typed = quiet | options
        self.batches, self.epochs = batches, epochs
        self.passes = count()

    def made(self, *callbacks: Callback, **usual: str) -> DetectionTrainer:
        """Return a trainer; ``usual`` are options where none was typed."""
        options = parse_cli(usual | self.typed)
        return trainer_class(self.typed["model"])(overrides=options, _callbacks=list(callbacks))

    @cached_property
    def trainer(self) -> DetectionTrainer:
        """A trainer before the first step of its first epoch; of one size, unless ``multi_scale`` was typed."""
        trainer = self.made(multi_scale="0")
        self.stack.enter_context(trainer.prepared())
        trainer.begin()
        trainer.epoch, _ = trainer.first_epoch()
        trainer.start_epoch_here()
        return trainer

    @cached_property
    def one_step(self) -> Step:
        return Step(self.trainer)

    def step(self) -> list[Row]:
        """A step, and its phases."""
        step = self.one_step
        step.prepare()
        taken = step.time_phases()
        row = {f"{phase}, ms": 1e3 * taken[phase] for phase in PHASES}
        if "matching" in taken:
            row["matching, % of the phases"] = 100 * taken["matching"] / sum(taken[phase] for phase in PHASES)
        whole = step.time_whole()
        return [row | {"step, ms": 1e3 * whole, "step, images/s": step.images / whole}]

    def memory(self) -> list[Row]:
        """What a step keeps for its backward pass beside weights and batch and, on a GPU, all that it takes."""
        step, device = self.one_step, self.trainer.device
        step.prepare()
        anyway = [*self.trainer.model.parameters(), *self.trainer.model.buffers(), step.batch["img"]]
        row = {"kept for backward, MB": tracing.bytes_kept(lambda: (step.forward(), step.loss()), anyway) / 1e6}
        del step.predictions, step.value, step.batch
        if device.type == "cuda":
            synchronise(device)
            torch.cuda.reset_peak_memory_stats(device)
            row["between steps, MB"] = torch.cuda.memory_allocated(device) / 1e6
            step.whole()
            synchronise(device)
            row["peak of a step, MB"] = torch.cuda.max_memory_allocated(device) / 1e6
        return [row]

    def operators(self) -> list[Row]:
        """How many calls of operators each phase makes and, on a GPU, kernels, and for how much of a step they run."""
        step, device = self.one_step, self.trainer.device
        step.whole()
        step.prepare()
        row: Row = {}
        for phase in PHASES:
            row[f"{phase}, calls"] = tracing.operators(tracing.traced(getattr(step, phase), device))
        row["phases, calls"] = sum(row.values())
        if device.type == "cuda":
            ran = tracing.kernels(tracing.traced(step.whole, device))
            # Tracing slows the host down and not the kernels, so the step that they are a share of is not traced.
            busy = tracing.covered(ran) / 1e6
            row |= {"step, kernels": len(ran), "kernels run, % of a step": 100 * busy / step.time_whole()}
        return [row]

    @cached_property
    def unprepared(self) -> tuple[DetectionTrainer, ImageIndex]:
        """A trainer that has not even a network, and the index of its training images."""
        trainer = self.made()
        trainer.data = trainer.get_dataset()
        return trainer, trainer.build_index(trainer.data["train"], "train")

    @cached_property
    def sources(self) -> dict[str, Iterator[Any]]:
        """Endless batches with and without mosaic, from files and from the cache in memory, made in this process."""
        trainer, index = self.unprepared
        sources = {}
        for cache in (False, "ram"):
            store = ImageStore(index, imgsz=trainer.imgsz(), cache=cache, stretch=trainer.stretch)
            store.fill()
            for mosaic in (1.0, 0.0):
                settings = replace(trainer.augment_settings(), mosaic=mosaic)
                dataset = TrainDataset(index, store, imgsz=trainer.imgsz(), settings=settings)
                name = f"mosaic {'on' if mosaic else 'off'}, cache {cache or 'none'}, images/s"
                sources[name] = endless(dataset, trainer.args.batch)
        return sources

    def data(self) -> list[Row]:
        """A pass over each way to make batches, on one thread: the work of one worker."""
        row, sources = {}, self.sources
        threads = cv2.getNumThreads(), torch.get_num_threads()
        cv2.setNumThreads(0)
        torch.set_num_threads(1)
        for name, source in sources.items():
            begin = time.perf_counter()
            images = sum(len(made["img"]) for made in islice(source, self.batches))
            row[name] = images / (time.perf_counter() - begin)
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
        return [row]

    def loading(self) -> list[Row]:
        """An epoch of what the worker processes deliver when nobody trains, from asking for it to its last batch."""
        loader = self.trainer.train_loader
        loader.set_epoch(next(self.passes))
        begin = time.perf_counter()
        images = sum(len(made["img"]) for made in loader)
        return [{f"{loader.workers} workers, images/s": images / (time.perf_counter() - begin)}]

    def loop(self) -> list[Row]:
        """A whole training: its first epoch with all that comes before, and each epoch after it."""
        timing = Timing()
        _, index = self.unprepared
        share = min(3 * self.batches * int(self.typed["batch"]) / len(index), 1.0)
        began = time.perf_counter()
        self.made(timing, epochs=str(self.epochs), fraction=str(share), val="false").train()
        first, *settled = timing.epochs
        rows = [{"first epoch with start-up, s": first["ended"] - began}]
        return rows + [
            {
                "training, images/s": epoch["images"] / epoch["seconds"],
                "waiting for data, % of the time": 100 * epoch["waiting"] / epoch["seconds"],
            }
            for epoch in settled
        ]

    def validation(self) -> list[Row]:
        """A pass over the validation data with its losses, of a network that has learned nothing."""
        trainer = self.trainer
        taken = seconds(lambda: trainer.validator(trainer), trainer.device)
        return [{"validation, images/s": len(trainer.test_loader.dataset) / taken}]

    def startup(self) -> list[Row]:
        """A new process up to its first trained batch; what is cached of the data set, and kernels, stay cached."""
        program = str(Path(__file__).with_name("startup.py"))
        began = time.time()
        done = subprocess.run(
            [sys.executable, program, json.dumps(self.typed)], capture_output=True, text=True, check=False
        )
        ends = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("first batch at ")]
        if not ends:
            raise RuntimeError(f"no batch was trained:\n{done.stderr}")
        return [{"to the first trained batch, s": float(ends[0]) - began}]

    def close(self) -> None:
        """End the processes that load."""
        self.stack.close()


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "step": Bench.step,
    "data": Bench.data,
    "loading": Bench.loading,
    "loop": Bench.loop,
    "validation": Bench.validation,
    "memory": Bench.memory,
    "operators": Bench.operators,
    "startup": Bench.startup,
}


class Benches:
    """Answers requests; what was made for the options of the last one is kept until there are others.

    Args:
        folder: for the folders of runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key: str | None = None
        self.bench: Bench | None = None

    def answer(self, request: dict[str, Any]) -> list[Row]:
        """Measure ``request["part"]`` once; the rest of it is what `Bench` takes."""
        part = PARTS[request.pop("part")]
        key = json.dumps(request, sort_keys=True)
        if self.bench is None or key != self.key:
            self.close()
            self.key, self.bench = key, Bench(**request, folder=self.folder)
        return part(self.bench)

    def close(self) -> None:
        """Give back what is kept."""
        if self.bench is not None:
            self.bench.close()
        self.bench = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def endless(dataset: TrainDataset, batch: int) -> Iterator[Any]:
    """Yield batches of epoch after epoch, made in this process."""
    loader = build_train_loader(dataset, batch=batch, workers=0, seed=0)
    for epoch in count():
        loader.set_epoch(epoch)
        yield from loader
