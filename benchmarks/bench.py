"""How fast is each part of a training: step, data path, whole loop, validation; all in one run.

``python benchmarks/bench.py [model=yolo26n] [imgsz=128] [batch=16] [device=cpu] [data=digits] [out=FILE] [--quick]
[--step]``

``--quick`` measures less of everything, ``--step`` the step of the model alone.

Everything is measured through the parts that a training uses. Every number is a median over repetitions, and what is
compared is measured in turns (A B A B), so that a machine that slows down slows both.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch

from eyas import Callback, TrainOptions
from eyas.data.dataset import TrainDataset
from eyas.data.index import ImageIndex
from eyas.data.loader import build_train_loader
from eyas.data.store import ImageStore
from eyas.families import family_of
from eyas.log import print_table
from eyas.losses import SetCriterion
from eyas.models import model_table
from eyas.train import DetectionTrainer
from eyas.train.setup import model_source

DEFAULTS = {"model": "yolo26n", "imgsz": "128", "batch": "16", "device": "cpu", "data": "digits", "out": ""}
FLAGS = ("--quick", "--step")
PHASES = ("forward", "loss", "backward", "optimizer")
RANDOM_IMAGES = 320


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Args:
        warm: steps before those that count: they choose kernels, allocate memory and, for matching, import SciPy.
        steps: repetitions of a step.
        limit: seconds after which no further repetition of a step begins; large models on a busy machine take long.
        passes: passes over the data path, of ``batches`` batches each.
        batches: see ``passes``.
        epochs: of the loop.
    """

    warm: int
    steps: int
    limit: float
    passes: int
    batches: int
    epochs: int

    def more_steps(self, done: int, began: float) -> bool:
        """Whether to repeat the step, after ``done`` repetitions since ``began``; at least one counts."""
        in_time = time.perf_counter() - began < self.limit
        return done <= self.warm or (in_time and done < self.warm + self.steps)


QUICK = Effort(warm=1, steps=4, limit=40, passes=3, batches=4, epochs=2)
FULL = Effort(warm=2, steps=20, limit=300, passes=5, batches=20, epochs=4)


def parse(arguments: list[str]) -> tuple[dict[str, str], Effort]:
    """Read ``key=value`` and flags; anything else ends the program."""
    options = dict(DEFAULTS)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if argument not in FLAGS and (key not in DEFAULTS or not value):
            raise SystemExit(f"{argument!r} is not understood; usage:\n{__doc__}")
        options |= {} if argument in FLAGS else {key: value}
    return options, QUICK if "--quick" in arguments else FULL


def random_data(folder: Path, imgsz: int) -> Path:
    """Write images of noise with three boxes each and return their YAML; for a machine that cannot make ``digits``."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i in range(RANDOM_IMAGES):
        noise = rng.integers(0, 256, (imgsz // 8, imgsz // 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / f"{i}.jpg"), cv2.resize(noise, (imgsz, imgsz)))
        rows = (f"{rng.integers(10)} {x:.3f} {y:.3f} 0.2 0.2\n" for x, y in rng.uniform(0.15, 0.85, (3, 2)))
        (folder / "labels" / f"{i}.txt").write_text("".join(rows))
    yaml = folder / "random.yaml"
    yaml.write_text(f"train: images\nval: images\nnames: {[str(i) for i in range(10)]}\n")
    return yaml


def find_data(name: str, folder: Path, imgsz: int) -> str:
    """Return what to train on; images of noise when ``digits`` cannot be made here."""
    if name == "digits":
        try:
            from eyas.data.digits import ensure_digits

            ensure_digits()
        except ImportError as error:
            print(f"{error}\nMeasuring on images of noise instead.")
            name = "random"
    return str(random_data(folder / "random", imgsz)) if name == "random" else name


def trainer_class(model: str) -> type[DetectionTrainer]:
    """Return the trainer of the model's family."""
    cfg, _ = model_source(TrainOptions(model=model), None)
    return family_of(model_table(cfg)).trainer


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


# -- (a) the step of the model -----------------------------------------------------------------------------------------
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
    """One training step in four phases, with a real trainer's model, loss, optimizer and average.

    Args:
        options: of the trainer.
        channels_last: memory layout of weights and images.

    Attributes:
        matcher: times the matching inside the loss; None for models that match nothing.
    """

    def __init__(self, options: dict[str, Any], channels_last: bool) -> None:
        # One size, or the layouts would be compared on different batches.
        options = options | {"channels_last": channels_last, "workers": 0, "multi_scale": 0.0}
        self.trainer = trainer_class(options["model"])(overrides=options)
        self.trainer.setup()
        trainer, layout = self.trainer, torch.channels_last if channels_last else torch.contiguous_format
        trainer.send_progress()
        trainer.model.train()
        trainer.set_rates()
        self.batch = trainer.preprocess_batch(next(iter(trainer.train_loader)))
        self.batch["img"] = self.batch["img"].contiguous(memory_format=layout)
        self.matcher: TimedMatcher | None = None
        criterion = trainer.model.criterion
        if isinstance(criterion, SetCriterion):
            criterion.matcher = self.matcher = TimedMatcher(criterion.matcher, trainer.device)

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

    def __call__(self) -> dict[str, float]:
        """Take a step; returns the seconds of each phase, of all of it, and of ``matching``, a part of the loss."""
        taken = {phase: seconds(getattr(self, phase), self.trainer.device) for phase in PHASES}
        taken["step"] = sum(taken.values())
        if self.matcher:
            taken["matching"], self.matcher.seconds = self.matcher.seconds, 0.0
        return taken


def measure_steps(options: dict[str, Any], effort: Effort) -> dict[str, Any]:
    """Return images/s of each phase and of the whole step, for both layouts measured in turns, and their ratio.

    For models that predict a set also ``matching``, its share of the step's time, over both layouts.
    """
    steps = {"channels_last": Step(options, True), "contiguous": Step(options, False)}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    done, began = 0, time.perf_counter()
    while effort.more_steps(done, began):
        for name, step in steps.items():
            runs[name].append(step())
        done += 1
    runs = {name: taken[effort.warm :] for name, taken in runs.items()}
    images, objects = len(steps["contiguous"].batch["img"]), len(steps["contiguous"].batch["cls"])
    result: dict[str, Any] = {"objects": objects / images, "repetitions": done - effort.warm}
    for name, all_taken in runs.items():
        result[name] = {part: images / median(run[part] for run in all_taken) for part in (*PHASES, "step")}
    pairs = zip(runs["channels_last"], runs["contiguous"], strict=True)
    result["ratio"] = median(slow["step"] / fast["step"] for fast, slow in pairs)
    both = [run for all_taken in runs.values() for run in all_taken]
    if "matching" in both[0]:
        result["matching"] = median(run["matching"] / run["step"] for run in both)
    return result


# -- (b) the data path -------------------------------------------------------------------------------------------------
def endless(dataset: TrainDataset, batch: int) -> Iterator[Any]:
    """Yield batches of epoch after epoch, made in this process: the work of one worker."""
    loader = build_train_loader(dataset, batch=batch, workers=0, seed=0)
    for epoch in cycle(range(1000)):
        loader.set_epoch(epoch)
        yield from loader


def data_sources(trainer: DetectionTrainer, index: ImageIndex) -> dict[str, Iterator[Any]]:
    """Return endless batches with and without mosaic, from files and from the cache in memory."""
    sources = {}
    for cache in (False, "ram"):
        store = ImageStore(index, imgsz=trainer.imgsz(), cache=cache, stretch=trainer.stretch)
        store.fill()
        for mosaic in (1.0, 0.0):
            settings = replace(trainer.augment_settings(), mosaic=mosaic)
            dataset = TrainDataset(index, store, imgsz=trainer.imgsz(), settings=settings)
            name = f"mosaic {'on' if mosaic else 'off'}, cache {cache or 'none'}"
            sources[name] = endless(dataset, trainer.args.batch)
    return sources


def measure_data(sources: dict[str, Iterator[Any]], effort: Effort) -> dict[str, float]:
    """Return images/s of each source, measured in turns, on one thread as in a worker."""
    runs: dict[str, list[float]] = {name: [] for name in sources}
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for repetition in range(1 + effort.passes):
        for name, source in sources.items():
            begin = time.perf_counter()
            images = sum(len(made["img"]) for made in islice(source, effort.batches))
            if repetition:  # the first pass reads files that the others find in memory
                runs[name].append(images / (time.perf_counter() - begin))
    cv2.setNumThreads(threads[0])
    torch.set_num_threads(threads[1])
    return {name: median(speeds) for name, speeds in runs.items()}


# -- (c), (d) the whole loop and its validations -----------------------------------------------------------------------
@dataclass
class Timing(Callback):
    """Notes, per epoch, seconds of training, seconds of waiting for batches, and images; and seconds of validations."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)

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
        self.epochs[-1]["seconds"] = time.perf_counter() - self.began

    def on_val_start(self, trainer: Any) -> None:
        self.began = time.perf_counter()

    def on_val_end(self, trainer: Any) -> None:
        synchronise(trainer.device)
        self.validations.append(time.perf_counter() - self.began)


def measure_loop(options: dict[str, Any], images: int, effort: Effort) -> dict[str, float]:
    """Return images/s of training and validation and the share of waiting, from the epochs after the first."""
    timing = Timing()
    fraction = min(3 * effort.batches * options["batch"] / images, 1.0)  # an epoch as long as it takes to measure it
    options = options | {"epochs": effort.epochs, "fraction": fraction}
    trainer = trainer_class(options["model"])(overrides=options, _callbacks=[timing])
    trainer.train()
    epochs, validations = timing.epochs[1:], timing.validations[1:]
    return {
        "training": median(epoch["images"] / epoch["seconds"] for epoch in epochs),
        "waiting": median(epoch["waiting"] / epoch["seconds"] for epoch in epochs),
        "validation": len(trainer.test_loader.dataset) / median(validations),
        "workers": trainer.train_loader.workers,
    }


# -- what people read --------------------------------------------------------------------------------------------------
def machine(device: torch.device) -> dict[str, Any]:
    """Return what the numbers depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": f"{device.type}: {name}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def report_step(step: dict[str, Any]) -> None:
    """Print the step of the model, in images/s, and what the matching takes of it."""
    layouts, parts = ("channels_last", "contiguous"), (*PHASES, "step")
    rows: list[list[object]] = [[part, *(f"{step[name][part]:.3g}" for name in layouts)] for part in parts]
    print_table("\nModel step, images/s", ["phase", *layouts], rows)
    print(f"channels_last is {step['ratio']:.2f} times as fast; medians of {step['repetitions']} repetitions")
    if "matching" in step:
        print(f"matching takes {step['matching']:.2%} of a step, with {step['objects']:.1f} objects in an image")


def report_rest(result: dict[str, Any]) -> None:
    """Print the data path and the whole loop, in images/s."""
    rows: list[list[object]] = [[name, round(speed, 1)] for name, speed in result["data"].items()]
    print_table("\nData path, images/s of one worker", ["source", "images/s"], rows)
    loop = result["loop"]
    rows = [
        [f"training, images/s ({loop['workers']} workers)", f"{loop['training']:.1f}"],
        ["waiting for data, share of that time", f"{loop['waiting']:.1%}"],
        ["validation with losses, images/s", f"{loop['validation']:.1f}"],
    ]
    print_table("\nWhole loop", ["what", "value"], rows)


def report(result: dict[str, Any]) -> None:
    """Print everything that was measured."""
    facts = result["options"] | result["machine"]
    print_table("Measured", ["what", "value"], [[name, str(value)] for name, value in facts.items()])
    report_step(result["step"])
    if "loop" in result:
        report_rest(result)


def measure(given: dict[str, str], effort: Effort, folder: Path, step_only: bool = False) -> dict[str, Any]:
    """Measure everything, or the step alone; runs and made images go into ``folder``."""
    options: dict[str, Any] = {key: given[key] for key in ("model", "device")}
    options |= {"imgsz": int(given["imgsz"]), "batch": int(given["batch"]), "plots": False, "verbose": False}
    options |= {"data": find_data(given["data"], folder, options["imgsz"]), "project": str(folder / "runs")}
    trainer = trainer_class(given["model"])(overrides=options)
    result = {"options": given, "machine": machine(trainer.device), "step": measure_steps(options, effort)}
    if step_only:
        return result
    trainer.data = trainer.get_dataset()
    index = trainer.build_index(trainer.data["train"], "train")
    result["data"] = measure_data(data_sources(trainer, index), effort)
    result["loop"] = measure_loop(options, len(index), effort)
    return result


def main(arguments: list[str]) -> None:
    """Measure, print, and write ``out``."""
    given, effort = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(given, effort, Path(folder), step_only="--step" in arguments)
    report(result)
    if given["out"]:
        Path(given["out"]).write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
