"""Nothing is forgotten over a resume: all that a trainer holds is, batch for batch, what it is in a straight run.

No list of what to save is compared with another: the trainer is walked as a whole, so an attribute that somebody adds
tomorrow, to the trainer or to a stock component, fails here until its value survives or its reason stands below.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from eyas.callbacks import Callback, ClipGradNorm
from eyas.checkpoint import CheckpointError, load_checkpoint
from eyas.files import digest
from eyas.launch.interrupt import Interrupted
from eyas.train import DetectionTrainer

MAY_DIFFER = {  # pattern of a whole path -> why a resumed run may hold something else there
    r"args\.(resume|model|save_dir|name)|args\._sources.*": "which run this is, and that it was resumed",
    r"save_dir|wdir|last|best|csv|found(\[\d+\])?": "where its files lie",
    r"resume_from(\..*)?": "what it was resumed from",
    r"saved": "words for people: how far last.pt holds the run, which one that was stopped wrote more often",
    r"started|elapsed_before|validation_seconds|history\.rows\[\d+\]\.time": "clocks",
    r"from_scratch|backbone_alone": "asked once, when the weights are made; the plan keeps the answer",
    r"callbacks\.(callbacks|_keys)(\..*|\[.*)?": "components are walked one by one, below their own names",
    r"callbacks\.(calls|fired|late|functions)(\..*|\[.*)?": "hooks of this process, for its own proof of effect",
    r"effects(\..*)?": "the proof of this process",
    r"requests\.every|interrupted\.(raised|at_once)": "when this process is asked to stop, and that it was",
    r"(autosave|watch)(\..*)?": "clocks and threads of this process; what is asked of them is in args",
    r"written(\..*)?": "which files this process has written, for its proof",
    r"(train_loader|test_loader)(\..*)?": "data: how far it was read follows from epoch and step, and tests/unit/data",
    r"validator(\..*)?": "numbers and clocks of this process's latest validation; trainer.metrics is kept",
    r"loss_names\[\d\]": "known from the end of a process's first epoch on",
    r"component\.(ConsoleReport|Pictures)\.0\..*": "what people look at: clocks and pictures of this process",
    r"loss_items(\..*)?|loss|batch(\..*)?|model\.criterion\..*": "of the batch at hand; both are compared by weights",
    r"start_step|start_epoch": "where this process began",
    r"validated": "whether the latest epoch of this process was",
    r"component\.(MetricReport\.0\.seen|BestBy\.0\.values|EarlyStop\.0\.last)(\W.*)?": "what it saw last",
    r"component\.BestBy\.0\.was_restored": "says so itself",
    r"component\.TorchSchedule\.0\.factors(\W.*)?": "the first and last that this process saw, for its proof",
    r"component\.(Watch|Stops)\.0(\..*)?": "the test's own",
}
EXCUSED = re.compile("|".join(f"(?:{pattern})" for pattern in MAY_DIFFER))


class Same:
    """Everything about a run by path, as comparable values; objects are walked, tensors and arrays become digests."""

    def __init__(self, trainer: Any) -> None:
        self.values: dict[str, object] = {}
        self.above: list[int] = []  # the objects that the current one hangs on
        for name, value in vars(trainer).items():
            self.walk(name, value)
        for key, component in trainer.callbacks.by_key().items():
            self.walk(f"component.{key}", component)

    def walk(self, path: str, value: Any) -> None:
        if EXCUSED.fullmatch(path):
            return
        if value is None or isinstance(value, str | int | float | Path | torch.device | torch.dtype | type):
            self.values[path] = repr(value)  # as text: nan equals itself, True is not 1
        elif isinstance(value, torch.Tensor):
            self.values[path] = digest([("", value)]), value.requires_grad
        elif isinstance(value, np.ndarray):
            self.values[path] = value.shape, value.tobytes()
        elif callable(value) and not isinstance(value, nn.Module) and not vars_of(value):
            self.values[path] = getattr(value, "__qualname__", type(value).__name__)
        elif id(value) not in self.above:
            self.above.append(id(value))
            self.values[path] = type(value).__name__
            for label, part in parts(value):
                self.walk(f"{path}{label}", part)
            self.above.pop()


def vars_of(value: Any) -> dict[str, Any]:
    return {} if isinstance(value, types.FunctionType | types.MethodType) else getattr(value, "__dict__", {})


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what hangs on an object, with labels."""
    if isinstance(value, nn.Module):
        yield from ((f".state.{name}", tensor) for name, tensor in value.state_dict().items())
        yield from ((f".{name}.training", module.training) for name, module in value.named_modules())
        yield from ((f".{name}.trains", p.requires_grad) for name, p in value.named_parameters())
        yield ".criterion", getattr(value, "criterion", None)
    elif isinstance(value, torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler):
        yield ".state", value.state_dict()
    elif isinstance(value, dict):
        yield from ((f".{key}", item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{i}]", item) for i, item in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield ".items", repr(sorted(value, key=repr))
    elif is_dataclass(value):
        yield from ((f".{field.name}", getattr(value, field.name)) for field in fields(value))
    else:
        yield from ((f".{name}", item) for name, item in vars_of(value).items())


class Watch(Callback):
    """Keeps the whole state at the end of every batch, of every epoch and of the run, from an epoch on."""

    def __init__(self, since: int = 0) -> None:
        self.since = since
        self.moments: dict[tuple[str, int, int], dict[str, object]] = {}

    def keep(self, what: str, trainer: Any) -> None:
        if trainer.epoch >= self.since:
            self.moments[what, trainer.epoch, trainer.step] = Same(trainer).values

    def on_train_batch_end(self, trainer: Any) -> None:
        self.keep("batch", trainer)

    def on_fit_epoch_end(self, trainer: Any) -> None:
        self.keep("epoch", trainer)

    def on_train_end(self, trainer: Any) -> None:
        self.keep("run", trainer)


class Crash(Exception):
    pass


class Stops(Callback):
    """Ends a run: by Ctrl-C inside an epoch, or by a crash once one is saved."""

    def __init__(self, epoch: int, step: int | None = None) -> None:
        self.at = epoch, step

    def on_train_batch_end(self, trainer: Any) -> None:
        if (trainer.epoch, trainer.step) == self.at:
            trainer.interrupted.raised = True

    def on_model_save(self, trainer: Any) -> None:
        if (trainer.epoch, None) == self.at:
            raise Crash


EVERYTHING = {  # one of every stock component, and of every kind of state
    "freeze": [{"what": "backbone", "epochs": 2, "ramp": 0.5}],
    "lr_rules": {"head": 0.5},
    "layer_decay": 0.95,
    "metrics": ["f1"],
    "class_weights": "balanced",
    "best_by": ["map50", {"metric": "val/box_loss", "name": "box"}],
    "stop": {"metric": "val/cls_loss", "patience": 50},
    "schedule": {"name": "ReduceLROnPlateau", "patience": 0, "factor": 0.5, "metric": "val/box_loss"},
    "clip_grad_norm": 0.5,
    "clip_grad_value": 0.1,
    "close_mosaic": 1,
    "mixup": 0.5,
    "multi_scale": 0.3,
}
PLAIN = {"optimizer": "SGD", "ema": False, "val_every": 2, "cls_pw": 0.5, "freeze": 3}


@pytest.mark.parametrize(
    ("changes", "epoch", "step"), [(EVERYTHING, 2, 0), (PLAIN, 0, None)], ids=["everything", "plain"]
)
def test_a_resumed_run_holds_what_a_straight_one_does(
    options: Any, changes: dict[str, Any], epoch: int, step: int | None
) -> None:
    """Three batches of six images per epoch, and a step after two of them and after the last."""
    o = options(**{"fraction": 0.28125, "batch": 6, "nbs": 12, "epochs": 3, "lr0": 0.002, **changes})
    straight, after = Watch(epoch), Watch()
    DetectionTrainer(overrides=o | {"name": "straight"}, _callbacks=[straight, Stops(99)]).train()
    cut = DetectionTrainer(overrides=o | {"name": "cut"}, _callbacks=[Watch(99), Stops(epoch, step)])
    with pytest.raises((Crash, Interrupted)):
        cut.train()
    DetectionTrainer(overrides={"resume": str(cut.last)}, _callbacks=[after, Stops(99)]).train()
    assert ("run", 2, 2) in after.moments and ("batch", 2, 2) in after.moments
    for moment, held in after.moments.items():
        wanted = straight.moments[moment]
        different = [k for k in {**wanted, **held} if wanted.get(k, "missing") != held.get(k, "missing")]
        told = [f"{key}: {wanted.get(key, 'missing')} -> {held.get(key, 'missing')}"[:200] for key in different]
        assert not different, f"{moment}:\n" + "\n".join(told[:20])


def test_the_comparison_can_fail_and_nothing_is_excused_in_vain(options: Any) -> None:
    watch = Watch()
    trainer = DetectionTrainer(
        overrides=options(fraction=0.25, batch=8, epochs=1, clip_grad_norm=0.5), _callbacks=[watch]
    )
    trainer.train()
    held = Same(trainer).values
    assert {"epoch", "best_fitness", "history.rows[0].train/box_loss", "component.ClipGradNorm.0.meter.steps"} <= set(
        held
    )
    next(c for c in trainer.callbacks.callbacks if isinstance(c, ClipGradNorm)).forgotten = 1
    trainer.optimizer.param_groups[0]["lr"] *= 2
    trainer.ema.updates += 1
    found = [k for k, v in Same(trainer).values.items() if held.get(k) != v]
    assert len(found) == 3 and any(k.endswith(".forgotten") for k in found), found
    assert load_checkpoint(trainer.last)["epoch"] == 0


def test_what_a_users_function_froze_stays_as_it_was(options: Any) -> None:
    """Frozen by hand once, at the start: weights and statistics stand still, over a resume that lacks the function.

    The batch size is the automatic one, which a resumed run keeps as well.
    """

    def freeze(trainer: Any) -> None:
        trainer.model.model[0].requires_grad_(False)
        trainer.freeze_layer_names = [*trainer.freeze_layer_names, "model.0."]

    def parts_of(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        weights = load_checkpoint(path)["state"]["model"]
        mine = {key: value for key, value in weights.items() if key.startswith("model.0.") and "num_" not in key}
        return mine, {key: value for key, value in weights.items() if key.startswith("model.1.")}

    o = {key: value for key, value in options(fraction=0.25, epochs=3, optimizer="SGD").items() if key != "batch"}
    cut = DetectionTrainer(overrides=o, _callbacks=[Stops(1)])
    cut.add_callback("on_train_start", freeze)
    start: dict[str, torch.Tensor] = {}
    cut.add_callback("on_train_start", lambda t: start.update({k: v.clone() for k, v in t.model.state_dict().items()}))
    with pytest.raises(Crash):
        cut.train()
    frozen, moving = parts_of(cut.last)
    assert len(frozen) == 5 and all(torch.equal(value, start[key]) for key, value in frozen.items())
    assert not any(torch.equal(value, start[key]) for key, value in moving.items())
    aside = cut.best.rename(cut.best.with_suffix(".aside"))
    with pytest.raises(CheckpointError, match=r"best\.pt of epoch \d should lie in"):
        DetectionTrainer(overrides={"resume": str(cut.last)}, _callbacks=[Stops(99)]).train()
    aside.rename(cut.best)
    resumed = DetectionTrainer(overrides={"resume": str(cut.last)}, _callbacks=[Stops(99)])
    resumed.train()
    still, moved = parts_of(cut.last)
    assert all(torch.equal(value, frozen[key]) for key, value in still.items())
    assert not any(torch.equal(value, moving[key]) for key, value in moved.items())
    assert resumed.batch_size == cut.batch_size
