"""Callbacks that watch a rehearsed training, in whatever process it runs."""

from __future__ import annotations

import faulthandler
import hashlib
import os
import random
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from eyas import dist
from eyas.callbacks import Callback
from eyas.files import digest
from eyas.nn.unwrap import unwrap_model
from eyas.rehearsal import blame
from eyas.rehearsal.difference import Snapshot, Value
from eyas.run.protocol import Run
from eyas.train.state import averaged

OWN_FORWARD = ("forward", "predict", "fuse")  # methods that decide what a model says
MOST_ITEMS = 1000  # of a container that is compared
TEXT = 60  # characters of a value that are shown


class RehearsalError(ValueError):
    """A training did what no training should."""


class CompareRanks(Callback):
    """After each epoch: all processes must hold the same weights and have decided the same.

    Raises:
        RehearsalError: names what differs.
    """

    def on_fit_epoch_end(self, trainer: Run) -> None:
        """Compare."""
        main, *others = dist.gather_all(facts(trainer))
        for rank, other in enumerate(others, 1):
            for name, value in other.items():
                if value != main[name]:
                    raise RehearsalError(
                        f"after epoch {trainer.epoch + 1}, {name} of rank {rank} is {short(value)}, and that of rank 0 "
                        f"is {short(main[name])}. Something is done on one process only, or with a value that each has "
                        "for itself: decide it on rank 0 and pass it on with eyas.dist.agree()."
                    )


def facts(trainer: Run) -> dict[str, object]:
    """Return what must be the same in all processes: decisions, then the hash of every tensor of the model."""
    decided = {
        "the choice of the best epoch": dict(trainer.best_files),
        "the fitness": trainer.fitness,
        "the decision to stop": trainer.stop,
        "the planned length": trainer.epochs,
    }
    rates = {"the learning rates": [group["lr"] for group in trainer.optimizer.param_groups]}
    return decided | rates | hashes(unwrap_model(trainer.model))


def hashes(model: nn.Module) -> dict[str, object]:
    """Return a hash of every parameter; buffers are shared before a validation only."""
    return {f"parameter {name}": digest([("", parameter)])[:12] for name, parameter in model.named_parameters()}


class KillInSecondEpoch(Callback):
    """Ends this process as the kernel does when memory is out: without a word, after the second epoch's first batch."""

    def on_train_batch_end(self, trainer: Run) -> None:
        """Die when it is time."""
        if trainer.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class TakeSnapshot(Callback):
    """Writes down what the user's objects hold when the second epoch begins."""

    def __init__(self, path: Path, script: Path) -> None:
        self.path, self.script = path, script
        self.at_start: dict[str, str] = {}

    def on_train_start(self, trainer: Run) -> None:
        """Remember the state of the global random numbers."""
        self.at_start = global_random_numbers()

    def on_train_epoch_start(self, trainer: Run) -> None:
        """Write."""
        if trainer.epoch == 1:
            self.write(trainer)

    def write(self, trainer: Run) -> None:
        """Write what stands now."""
        now = global_random_numbers()
        drawn = [name for name, state in now.items() if state != self.at_start.get(name)]
        Snapshot(
            weights=digest(unwrap_model(trainer.model).state_dict().items()),
            values=own_values(trainer, self.script),
            drawn={name: blame.random_call(self.script, name) for name in drawn},
        ).write(self.path)


class TakeSnapshots(TakeSnapshot):
    """Does so whenever an epoch begins, as ``1.json``, ``2.json``, ... in a folder; and says that it trains."""

    def __init__(self, folder: Path, script: Path) -> None:
        super().__init__(folder / "1.json", script)

    def on_train_start(self, trainer: Run) -> None:
        """Say that training begins."""
        super().on_train_start(trainer)
        self.path.parent.mkdir(exist_ok=True)
        began_file(self.path.parent).touch()

    def on_train_epoch_start(self, trainer: Run) -> None:
        """Write, if it is the beginning: a run may go on inside an epoch."""
        if trainer.start_step == 0 and dist.is_main():
            self.path = self.path.with_name(f"{trainer.epoch + 1}.json")
            self.write(trainer)


def began_file(folder: Path) -> Path:
    """Return the file that says that a run which leaves its snapshots in a folder trains."""
    return folder / "began"


class KeepAnswer(Callback):
    """Writes what the best weights say to a fixed image, for an interpreter that does not know the user's class."""

    def __init__(self, path: Path, imgsz: int) -> None:
        self.path, self.imgsz = path, imgsz

    def on_train_end(self, trainer: Run) -> None:
        """Write; the averaged weights are the best ones by now."""
        model = averaged(trainer)
        cls = type(model)
        places = {name: blame.method_line(cls, name) for name in OWN_FORWARD}
        lines = {"class": blame.class_line(cls)} | places | blame.attribute_lines(cls)
        known = {name: asdict(place) for name, place in lines.items() if place is not None}
        model = calibrated(model, self.imgsz)
        said = {"answer": answer(model, self.imgsz), "weights": dict(model.state_dict())}
        torch.save(said | {"class": cls.__name__, "lines": known}, self.path)


@torch.no_grad()
def calibrated(model: nn.Module, imgsz: int) -> nn.Module:
    """Return a copy in eval mode whose normalisation fits the fixed images: a signal dies away in untrained layers.

    Its memory layout is that of a model which was just opened: another one rounds otherwise.
    """
    copy = deepcopy(model).to(memory_format=torch.contiguous_format).train()  # type: ignore[call-overload]  # stubs lag
    for module in copy.modules():
        if isinstance(module, _NormBase):
            module.momentum = 1.0
    copy(fixed_images(imgsz))
    return copy.eval()


@torch.no_grad()
def answer(model: nn.Module, imgsz: int) -> Tensor:
    """Return all numbers that a model gives for fixed images, sorted: equal scores may come in another order."""
    output = model.eval()(fixed_images(imgsz))
    first = output[0] if isinstance(output, tuple | list) else output
    return first.float().flatten().sort().values


def fixed_images(imgsz: int) -> Tensor:
    """Return two images of noise, the same in every process."""
    return torch.rand(2, 3, imgsz, imgsz, generator=torch.Generator().manual_seed(0))


class WatchForHang(Callback):
    """Writes where every thread of this process stands shortly before the stage is given up."""

    def __init__(self, folder: Path, name: str, deadline: float) -> None:
        self.folder, self.name, self.deadline = folder, name, deadline

    def on_pretrain_routine_start(self, trainer: Run) -> None:
        """Set the alarm."""
        watch_for_hang(self.folder / f"hang-{self.name}-rank{dist.rank()}.txt", self.deadline)


def watch_for_hang(path: Path, deadline: float) -> None:
    """Write tracebacks of all threads into a file when ``time.time()`` reaches the deadline.

    A thread of Python's does it, which holds the interpreter's lock: faulthandler's own timer reads frames that other
    threads are changing. Where no thread gets that lock any more, the file stays empty.
    """
    file = path.open("w")
    timer = threading.Timer(max(deadline - time.time(), 1), faulthandler.dump_traceback, (file,))
    timer.daemon = True
    timer.start()


# -- what the user's objects hold --------------------------------------------------------------------------------------
def own_values(trainer: Run, script: Path) -> dict[str, Value]:
    """Return attributes that the user's classes set, and globals of their file, as texts with the line behind each."""
    found: dict[str, Value] = {}
    for owner in (trainer, *trainer.callbacks.callbacks, unwrap_model(trainer.model)):
        lines = blame.trainer_lines(script) if owner is trainer else {}
        for name, place in (blame.attribute_lines(type(owner)) | lines).items():
            text = plain_text(vars(owner).get(name, getattr(type(owner), name, None)))
            if text is not None:
                found[f"{type(owner).__name__}.{name}"] = text, place
    found |= {name: value for name, value in hung_on(trainer, script).items() if name not in found}
    main = vars(sys.modules["__main__"])
    for name, place in blame.global_lines(script).items():
        text = plain_text(main.get(name))
        if text is not None:
            found[f"the global variable {name}"] = text, place
    return found


def hung_on(trainer: Run, script: Path) -> dict[str, Value]:
    """Return what the user has set on the trainer, in whatever way, under a name that Eyas does not use."""
    files = dict.fromkeys([str(script), *(blame.file_of(type(c)) for c in (trainer, *trainer.callbacks.callbacks))])
    found: dict[str, Value] = {}
    for name in vars(trainer).keys() - blame.stock_attributes(type(trainer)):
        text, place = plain_text(vars(trainer)[name]), blame.setting_line(name, files)
        if text is not None and place is not None:
            found[f"{type(trainer).__name__}.{name}"] = text, place
    return dict(sorted(found.items()))


def plain_text(value: object) -> str | None:
    """Return a value as a text that tells it from others; None for what cannot be compared."""
    if isinstance(value, Tensor):
        return f"a tensor with hash {digest([('', value)])[:12]}"
    if isinstance(value, np.ndarray):
        return f"an array with hash {sha(value.tobytes())}"
    states = {random.Random: "getstate", torch.Generator: "get_state"}
    for kind, method in states.items():
        if isinstance(value, kind):
            state = getattr(value, method)()
            return f"a generator in state {sha(repr(state.tolist() if isinstance(state, Tensor) else state).encode())}"
    if isinstance(value, np.random.Generator):
        return f"a generator in state {sha(repr(value.bit_generator.state).encode())}"
    return short(value) if is_plain(value) else None


def is_plain(value: object, depth: int = 3) -> bool:
    """Whether the text of a value tells all of it."""
    if isinstance(value, str | int | float | bool | type(None)):
        return True
    if not isinstance(value, Mapping | list | tuple | set | deque) or len(value) > MOST_ITEMS or depth == 0:
        return False
    items = [*value.keys(), *value.values()] if isinstance(value, Mapping) else list(value)
    return all(is_plain(item, depth - 1) for item in items)


def short(value: object) -> str:
    """Return a value as a text; of a long one, its beginning and a hash of the rest."""
    text = repr(sorted(value, key=repr)) if isinstance(value, set) else repr(value)
    return text if len(text) <= TEXT else f"{text[: TEXT - 20]}... ({sha(text.encode())})"


def sha(content: bytes) -> str:
    """Return the first digits of a hash."""
    return hashlib.sha256(content).hexdigest()[:12]


def global_random_numbers() -> dict[str, str]:
    """Return the state of the random numbers that belong to nobody."""
    return {
        "random": sha(repr(random.getstate()).encode()),
        "numpy.random": sha(repr(np.random.get_state()).encode()),  # noqa: NPY002  # it is the old one that is watched
    }
