"""All figures of a GPU in one call of at most seven minutes: its tests, steps, trainings, data path, validation.

    benchmarks/gpu.sh [--small] [out=FILE] [OPTION=VALUE ...]

Options go into every figure. What has no time left is left out with a line; what takes longer than its share is ended.
Without a GPU, or with `--small`, the same is done in tiny sizes: that tries this program, and its numbers mean nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import photos
import yaml
from bench import HERE, as_json, in_turns, options_of, report, summary
from sides import Side, SideError

TOTAL = 400.0  # seconds in which everything begins and ends; what follows is seconds of interpreters that end
SMALL_TOTAL = 220.0
TESTS = 100.0  # seconds
LEAST = 0.4  # share of a figure's seconds that must be left for it to begin
PHOTOS = (28 * 128, 516)  # to train on, whole batches of 128, and to validate on
SMALL_PHOTOS = (40, 8)

Options = dict[str, str]

# The augmentation of a long run, which the recipe would weaken in the few epochs that are measured.
LONG_RUN = {"mosaic": "1.0", "close_mosaic": "0", "scale": "0.5", "translate": "0.1"}


@dataclass(frozen=True)
class Figure:
    """Something to measure.

    Args:
        name: unique.
        seconds: after which it is ended.
        parts: of `parts.PARTS`, all of one setting.
        options: of the training.
        turns: of each part that count, after one that does not where there are several.
        compiled: measured as written and under ``compile=true``, in turns.
    """

    name: str
    seconds: float
    parts: tuple[str, ...]
    options: Options
    turns: int = 1
    compiled: bool = False

    def settings(self, usual: Options, typed: Options) -> list[Options]:
        """Return the options of each side: the figure's over the usual ones, and what was typed over both."""
        options = usual | self.options | typed
        return [options | {"compile": word} for word in ("false", "true")] if self.compiled else [options]


def figures() -> list[Figure]:
    """Return what is measured on a GPU, most important first; each worker count is a setting of its own."""
    yolo, rtdetr = {"model": "yolo26n"}, {"model": "rtdetr-l", "batch": "16", "workers": "4"}
    whole, inside = yolo | {"batch": "128", "workers": "16"} | LONG_RUN, ("step", "memory", "operators")
    half = yolo | {"batch": "64", "workers": "4"}
    lean, again = ("step", "memory"), {"gradient_checkpointing": "true"}
    apart = half | {"workers": "8", "hsv_on_device": "true"}
    step = whole | {"workers": "4"}  # what waits in the queues of two sides takes memory
    return [
        Figure("yolo26n, step of 64", 50, inside, half, turns=5),
        Figure("yolo26n, training in batches of 128", 70, ("loop", "validation"), whole),
        Figure("rtdetr-l, step of 16", 50, inside, rtdetr, turns=5),
        Figure("rtdetr-l, step of 16 under multi_scale", 40, ("step",), rtdetr | {"multi_scale": "0.25"}, turns=8),
        Figure("mosaic, 16 workers", 25, ("loading",), yolo | {"batch": "32", "workers": "16"}, turns=2),
        Figure("mosaic, 8 workers", 30, ("loading",), yolo | {"batch": "32", "workers": "8"}, turns=2),
        Figure("mosaic, 8 workers, and step of 64, colours on the GPU", 40, ("loading", "step"), apart, turns=3),
        Figure("yolo26n, step of 64 that saves memory", 20, lean, half | again, turns=3),
        Figure("rtdetr-l, step of 16 that saves memory", 20, lean, rtdetr | again, turns=3),
        Figure("yolo26n, step of 128, as written and compiled", 170, inside, step, turns=4, compiled=True),
        Figure("yolo26n, training in batches of 128, as written and compiled", 90, ("loop",), whole, compiled=True),
    ]


def small_figures(folder: Path) -> list[Figure]:
    """Return the same in sizes that a CPU can do; what is compiled is a network of a few layers."""
    sizes = {"imgsz": "64", "batch": "4", "workers": "1"}
    other = {"rtdetr-l": "rtdetr-tiny"}
    small = []
    for figure in figures():
        options = figure.options | sizes | {"model": other.get(figure.options["model"], figure.options["model"])}
        if figure.compiled:
            options |= {"model": str(few_layers(folder))}
        if "multi_scale" in options:
            options |= {"imgsz": "96"}
        small.append(replace(figure, seconds=min(figure.seconds, 80), options=options, turns=min(figure.turns, 2)))
    return small


def few_layers(folder: Path) -> Path:
    """Write the table of a YOLO26 of three convolutions and a head of one level, and return its path."""
    table = {
        "nc": 80,
        "end2end": True,
        "reg_max": 1,
        "scales": {"n": [0.5, 0.125, 64]},
        "scale": "n",
        "backbone": [[-1, 1, "Conv", [width, 3, 2]] for width in (64, 128, 256)],
        "head": [[[2], 1, "Detect", ["nc"]]],
    }
    path = folder / "few.yaml"
    path.write_text(yaml.safe_dump(table), encoding="utf-8")
    return path


@dataclass
class Clock:
    """What is left of a time.

    Args:
        total: seconds from now on.
    """

    total: float
    began: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Return seconds, negative when they are over."""
        return self.total - (time.monotonic() - self.began)


def run_tests(seconds: float) -> dict[str, Any]:
    """Run the tests that need a GPU (all others of `tests/gpu` run anywhere).

    Returns whether they passed, which without a GPU they do not, and what pytest said last.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu/test_gpu.py"]
    running = subprocess.Popen(
        command,
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that what the tests start can be ended with them
    )
    try:
        said, _ = running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        said, _ = running.communicate()
        said += f"\nended after {seconds:.0f} s"
    print(said)
    return {"passed": running.returncode == 0, "last": said.strip().splitlines()[-1]}


class Stage:
    """The measuring processes: one for what runs as written, one for what is compiled, each started when needed."""

    def __init__(self) -> None:
        self.sides: dict[int, Side] = {}

    def side(self, number: int) -> Side:
        """Return a side that can be asked; one that has ended is replaced."""
        if number in self.sides and not self.sides[number].alive:
            self.end(number)
        if number not in self.sides:
            self.sides[number] = Side(HERE)
        return self.sides[number]

    def measure(self, part: str, figure: Figure, settings: Sequence[Options], clock: Clock) -> dict[str, Any]:
        """Return the summary of a part of a figure.

        Raises:
            SideError: a process ended, or took longer than the clock has left.
        """
        turns, warm = (figure.turns, min(figure.turns - 1, 1)) if part in ("step", "loading") else (1, 0)

        def ask(number: int, options: Options) -> list[dict[str, float]]:
            request = {"part": part, "options": options, "batches": 10**6, "epochs": 4 if len(settings) == 1 else 3}
            return self.side(number).ask(timeout=max(clock.left(), 0), **request)

        asks = [partial(ask, number, options) for number, options in enumerate(settings)]
        return summary(in_turns(asks, turns, warm, limit=clock.left() / 2))

    def end(self, *numbers: int) -> None:
        """End some sides, or those there are: a compiling process is begun anew for every figure, as for a training."""
        for number in numbers or list(self.sides):
            if number in self.sides:
                self.sides.pop(number).close()


def measure_all(given: Sequence[Figure], usual: Options, typed: Options, clock: Clock, stage: Stage, save: Any) -> None:
    """Measure one figure after the other, print each, and give each part to ``save(figure, part, plain values)``."""
    for figure in given:
        if clock.left() < LEAST * figure.seconds:
            left = max(clock.left(), 0.0)
            print(f"\n{figure.name}: left out, for {left:.0f} s are left")
            save(figure.name, "left out", left)
            continue
        own = Clock(min(figure.seconds, clock.left()))
        settings = figure.settings(usual, typed)
        for part in figure.parts:
            try:
                found = stage.measure(part, figure, settings, own)
            except SideError as error:
                print(f"\n{figure.name}, {part}: {error}")
                save(figure.name, part, {"error": str(error)})
                break
            report(f"{figure.name}: {part}", found, ["as written", "compiled"][: len(settings)])
            save(figure.name, part, as_json(found))
        stage.end(1)


def main(arguments: Sequence[str]) -> None:
    """Run tests, measure, print, and write ``out`` after each part."""
    try:
        typed = options_of([word for word in arguments if word != "--small"])
    except ValueError as error:
        raise SystemExit(f"{error}; usage:\n{__doc__}") from None
    out = Path(typed.pop("out", "runs/gpu.json"))
    out.parent.mkdir(parents=True, exist_ok=True)
    began, stage = time.monotonic(), Stage()
    with ExitStack() as stack:
        stack.callback(stage.end)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        machine = stage.side(0).machine
        small = "--small" in arguments or machine["GPU"] is None
        clock = Clock(SMALL_TOTAL if small else TOTAL, began)
        print(f"{machine['GPU'] or machine['processor'] + ', no GPU'}, torch {machine['torch']}", flush=True)
        if small:
            print("tiny sizes, whatever a figure's name says: its numbers mean nothing")
        train, val = SMALL_PHOTOS if small else PHOTOS
        data = photos.ensure(Path(tempfile.gettempdir()) / f"eyas-photos-{train}-{val}", train, val)
        print(f"{train + val} photographs after {time.monotonic() - began:.0f} s", flush=True)
        result: dict[str, Any] = {"machine": machine, "small": small, "options": typed, "figures": {}}

        def save(figure: str, part: str, values: Any) -> None:
            result["figures"].setdefault(figure, {})[part] = values
            result["seconds"] = time.monotonic() - began
            out.write_text(json.dumps(result, indent=2), encoding="utf-8")

        save("tests", "outcome", run_tests(min(TESTS, clock.left())))
        usual = {"data": str(data), "imgsz": "640", "device": "0", "amp": "bf16", "compile": "false"}
        if small:
            usual |= {"device": "0" if machine["GPU"] else "cpu", "amp": "true"}
        measure_all(small_figures(folder) if small else figures(), usual, typed, clock, stage, save)
    print(f"\n{time.monotonic() - began:.0f} s; all numbers are in {out}")


if __name__ == "__main__":
    main(sys.argv[1:])
