"""What the flight recorder of a run costs: steps with it and without it, in turns, in one process.

    python benchmarks/recorder.py model=yolo26n imgsz=128 batch=16 pairs=100

Without it a step notes nothing, checks nothing and looks at no gradient; clipping stays. Both kinds of step take the
same batches, one after the other, and which comes first changes, so that what else the machine does meets both.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from eyas.api import trainer_from
from eyas.config import resolve
from eyas.train import BaseTrainer, divergence

ASIDE = ("before_batch", "note_losses", "may_step")
WARM = 10  # pairs that are not counted


@contextmanager
def without_recorder() -> Iterator[None]:
    """Inside the block, steps are taken as if there were none."""
    before = {name: getattr(divergence, name) for name in ASIDE}
    for name in ASIDE:
        setattr(divergence, name, lambda *given: True)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(divergence, name, function)


def seconds(trainer: BaseTrainer, batch: Any, recorded: bool) -> float:
    """Return how long a step takes: by the clock on a GPU, in time of the processor on a CPU, which others share."""
    clock = time.perf_counter if trainer.device.type == "cuda" else time.process_time
    began = clock()
    if recorded:
        trainer.train_batch(batch)
    else:
        with without_recorder():
            trainer.train_batch(batch)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def measure(trainer: BaseTrainer, pairs: int) -> tuple[list[float], list[float]]:
    """Return the seconds of so many steps with the recorder, and without it."""
    trainer.begin()
    trainer.start_epoch_here()
    trainer.accumulate = 1  # every batch is a step of the optimizer
    recorded, plain = [], []
    batches = list(trainer.train_loader)[:-1]  # the last one may be smaller
    for number in range(WARM + pairs):
        trainer.step, batch = number % len(batches), batches[number % len(batches)]
        for with_it in (True, False) if number % 2 else (False, True):
            (recorded if with_it else plain).append(seconds(trainer, dict(batch), with_it))
    return recorded[WARM:], plain[WARM:]


def main() -> None:
    given: dict[str, Any] = {"model": "yolo26n", "data": "digits", "imgsz": 128, "batch": 16, "pairs": 100}
    given |= dict(argument.split("=", 1) for argument in sys.argv[1:])
    pairs = int(given.pop("pairs"))
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"workers": 0, "plots": False, "report": False, "verbose": False, "save_dir": folder}
        trainer = trainer_from(resolve(call=given | {"epochs": 5} | quiet))
        with trainer.prepared():
            recorded, plain = measure(trainer, pairs)
    ratios = [one / other for one, other in zip(recorded, plain, strict=True)]
    quarter, middle, last = statistics.quantiles(ratios, n=4)
    print(f"a step takes {statistics.median(plain) * 1e3:.1f} ms without the recorder, in {pairs} pairs")
    print(f"with it {middle - 1:+.2%} (quartiles {quarter - 1:+.2%} and {last - 1:+.2%})")


if __name__ == "__main__":
    main()
