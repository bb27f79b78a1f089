"""How fast is each part of a training: step, data path, whole loop, validation; all in one run.

``python benchmarks/bench.py [model=yolo26n] [imgsz=128] [batch=16] [device=cpu] [data=digits] [out=FILE] [--quick]``

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

from eyas import Callback
from eyas.data.dataset import TrainDataset
from eyas.data.index import ImageIndex
from eyas.data.loader import build_train_loader
from eyas.data.store import ImageStore
from eyas.log import print_table
from eyas.train import DetectionTrainer

DEFAULTS = {"model": "yolo26n", "imgsz": "128", "batch": "16", "device": "cpu", "data": "digits", "out": ""}
PHASES = ("forward", "loss", "backward", "optimizer")
RANDOM_IMAGES = 320


@dataclass(frozen=True)
class Effort:
    """How much is measured: repetitions of a step, of a pass over data, batches of a pass, epochs of the loop."""

    steps: int
    passes: int
    batches: int
    epochs: int


QUICK, FULL = Effort(steps=4, passes=3, batches=4, epochs=2), Effort(steps=20, passes=5, batches=20, epochs=4)


def parse(arguments: list[str]) -> tuple[dict[str, str], Effort]:
    """Read ``key=value`` and ``--quick``; an unknown key ends the program."""
    options = dict(DEFAULTS)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if argument != "--quick" and (key not in DEFAULTS or not value):
            raise SystemExit(f"{argument!r} is not understood; usage:\n{__doc__}")
        options |= {} if argument == "--quick" else {key: value}
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
class Step:
    """One training step in four phases, with a real trainer's model, loss, optimizer and average.

    Args:
        options: of the trainer.
        channels_last: memory layout of weights and images.
    """

    def __init__(self, options: dict[str, Any], channels_last: bool) -> None:
        self.trainer = DetectionTrainer(overrides=options | {"channels_last": channels_last, "workers": 0})
        self.trainer.setup()
        trainer, layout = self.trainer, torch.channels_last if channels_last else torch.contiguous_format
        trainer.send_progress()
        trainer.model.train()
        trainer.set_rates()
        self.batch = trainer.preprocess_batch(next(iter(trainer.train_loader)))
        self.batch["img"] = self.batch["img"].contiguous(memory_format=layout)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.trainer.device.type, dtype=self.trainer.amp_dtype, enabled=self.trainer.amp)

    def forward(self) -> None:
        with self.autocast():
            self.predictions = self.trainer.model.predict(self.batch["img"])

    def loss(self) -> None:
        with self.autocast():
            self.value = self.trainer.model.loss(self.batch, self.predictions)[0].sum()

    def backward(self) -> None:
        self.trainer.scaler.scale(self.value).backward()

    def optimizer(self) -> None:
        self.trainer.optimizer_step()

    def __call__(self) -> list[float]:
        """Take a step; returns the seconds of each phase."""
        return [seconds(getattr(self, phase), self.trainer.device) for phase in PHASES]


def measure_steps(options: dict[str, Any], effort: Effort) -> dict[str, Any]:
    """Return images/s of each phase and of the whole step, for both layouts measured in turns, and their ratio."""
    steps = {"channels_last": Step(options, True), "contiguous": Step(options, False)}
    runs: dict[str, list[list[float]]] = {name: [] for name in steps}
    for repetition in range(2 + effort.steps):
        for name, step in steps.items():
            taken = step()
            if repetition >= 2:  # the first two choose kernels and allocate memory
                runs[name].append(taken)
    images = len(steps["contiguous"].batch["img"])
    result: dict[str, Any] = {}
    for name, all_taken in runs.items():
        result[name] = {phase: images / median(run[i] for run in all_taken) for i, phase in enumerate(PHASES)}
        result[name]["step"] = images / median(sum(run) for run in all_taken)
    ratios = [sum(slow) / sum(fast) for fast, slow in zip(runs["channels_last"], runs["contiguous"], strict=True)]
    return result | {"ratio": median(ratios)}


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
        store = ImageStore(index, imgsz=trainer.imgsz(), cache=cache)
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
    trainer = DetectionTrainer(overrides=options, _callbacks=[timing])
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


def report(result: dict[str, Any]) -> None:
    """Print everything, in images/s."""
    facts = result["options"] | result["machine"]
    print_table("Measured", ["what", "value"], [[name, str(value)] for name, value in facts.items()])
    layouts, phases = ("channels_last", "contiguous"), (*PHASES, "step")
    rows: list[list[object]] = [[phase, *(round(result["step"][n][phase], 1) for n in layouts)] for phase in phases]
    print_table("\nModel step, images/s", ["phase", *layouts], rows)
    print(f"channels_last is {result['step']['ratio']:.2f} times as fast")
    rows = [[name, round(speed, 1)] for name, speed in result["data"].items()]
    print_table("\nData path, images/s of one worker", ["source", "images/s"], rows)
    loop = result["loop"]
    rows = [
        [f"training, images/s ({loop['workers']} workers)", f"{loop['training']:.1f}"],
        ["waiting for data, share of that time", f"{loop['waiting']:.1%}"],
        ["validation with losses, images/s", f"{loop['validation']:.1f}"],
    ]
    print_table("\nWhole loop", ["what", "value"], rows)


def measure(given: dict[str, str], effort: Effort, folder: Path) -> dict[str, Any]:
    """Measure everything; runs and made images go into ``folder``."""
    options: dict[str, Any] = {key: given[key] for key in ("model", "device")}
    options |= {"imgsz": int(given["imgsz"]), "batch": int(given["batch"]), "plots": False, "verbose": False}
    options |= {"data": find_data(given["data"], folder, options["imgsz"]), "project": str(folder / "runs")}
    trainer = DetectionTrainer(overrides=options)
    trainer.data = trainer.get_dataset()
    index = trainer.build_index(trainer.data["train"], "train")
    return {
        "options": given,
        "machine": machine(trainer.device),
        "step": measure_steps(options, effort),
        "data": measure_data(data_sources(trainer, index), effort),
        "loop": measure_loop(options, len(index), effort),
    }


def main(arguments: list[str]) -> None:
    """Measure, print, and write ``out``."""
    given, effort = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(given, effort, Path(folder))
    report(result)
    if given["out"]:
        Path(given["out"]).write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
