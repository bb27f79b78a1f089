"""Witnesses: every option has one, and the rules by which a missing one is blamed on somebody."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from eyas.callbacks import Callback, CallbackList, ClipGradNorm
from eyas.config import TrainOptions, option_names
from eyas.config.facts import Teller
from eyas.config.options import facts
from eyas.prove import effects, hooks, settings


def test_every_due_hook_and_every_suspect_is_real() -> None:
    from eyas.callbacks import ADJUSTERS, EVENTS
    from eyas.callbacks.stock import FIRST, LAST
    from eyas.trackers import Trackers
    from eyas.train import DetectionTrainer

    later = {"on_model_save", "adjust_checkpoint", "on_fit_epoch_end", "on_train_end", "on_exception", "teardown"}
    assert set(hooks.DUE) | later == {*ADJUSTERS, *EVENTS}
    known = {name: facts(name) for name in option_names("train")}
    methods = {m for callers in hooks.DUE.values() for m in callers} | set(hooks.ANY_HOOK)
    methods |= {m for makers in settings.MAKERS.values() for m in makers}
    methods |= {f.needs for f in known.values() if f.needs}
    methods |= {m for f in known.values() for m in f.adjusted_by if m not in ADJUSTERS}
    assert [m for m in sorted(methods) if not hasattr(DetectionTrainer, m)] == []
    owned = {name for cls in (*FIRST, *LAST, Trackers) for name in cls.options}
    assert {name for name, f in known.items() if f.told_by is Teller.COMPONENT} == owned - {"schedule", "cos_lr", "lrf"}


def test_only_what_a_person_changed_needs_a_witness() -> None:
    args = TrainOptions(mosaic=0.5, mixup=0.0, lr0=None)
    args.seed = 3
    assert settings.changed_options(args) == ["seed", "mosaic"]
    recipe = TrainOptions.from_layers({"mosaic": 0.5}, {"mosaic": "recipe"})
    assert settings.changed_options(recipe) == []


class Counted(Callback):
    def adjust_loss(self, trainer: Any, loss: Any) -> Any:
        return loss


def trainer_with(*callbacks: Callback, world_size: int = 0) -> Any:
    """Return what stands in for a trainer where only its hooks are looked at."""
    hooks = CallbackList(list(callbacks))
    return SimpleNamespace(callbacks=hooks, world_size=world_size, model=nn.Linear(1, 1), args=TrainOptions())


def test_a_hook_that_ran_everywhere_is_fine() -> None:
    trainer = trainer_with(Counted(), world_size=2)
    assert hooks.missing_calls(trainer, [{"Counted.0.adjust_loss": 4}, {"Counted.0.adjust_loss": 4}]) == []


def test_a_hook_that_a_rank_skipped_is_named_with_the_rank() -> None:
    trainer = trainer_with(Counted(), world_size=2)
    (line,) = hooks.missing_calls(trainer, [{"Counted.0.adjust_loss": 4}, {"Counted.0.adjust_loss": 0}])
    assert line.startswith("Counted: adjust_loss was registered and has not been called on rank 1: ")
    (line,) = hooks.missing_calls(trainer, [{"Counted.0.adjust_loss": 4}, {}])
    assert "rank 1" in line, "dropped on the way to the other process"


def test_a_callback_for_the_main_process_is_missed_nowhere_else() -> None:
    callback = Counted()
    callback.on = "main"
    trainer = trainer_with(callback, world_size=2)
    calls = [{"Counted.0.adjust_loss": 4}, {}]
    assert hooks.missing_calls(trainer, calls) == []
    assert hooks.hook_table(calls) == {"Counted.0.adjust_loss": [4, None]}


def test_components_of_defaults_may_be_left_out() -> None:
    clip = ClipGradNorm(10)
    clip.origin = "default"
    assert hooks.missing_calls(trainer_with(clip), [{}]) == []
    clip.origin = "component"
    assert "adjust_gradients" in hooks.missing_calls(trainer_with(clip), [{}])[0]


def test_late_receivers_wait_for_the_next_time_unless_there_is_none() -> None:
    trainer = trainer_with()
    trainer.callbacks.fire("on_train_start", None)
    trainer.callbacks.adjust("adjust_loss", None, 1)
    trainer.callbacks.add(Counted())
    assert hooks.missing_calls(trainer, [hooks.hook_calls(trainer)]) == []
    trainer.callbacks.add_function("on_train_start", print)
    (line,) = hooks.missing_calls(trainer, [hooks.hook_calls(trainer)])
    assert line.startswith("print: on_train_start was registered") and "Add it before train()" in line


def test_frozen_tensors_include_statistics_and_their_hash_is_of_the_bytes() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Linear(2, 2))
    assert effects.frozen_facts(model, 1) == {"epoch": 1, "tensors": 0, "values": 0, "sha256": None}
    model[1].requires_grad_(False)
    model[2].bias.requires_grad_(False)
    names = {"1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked", "2.bias"}
    assert set(effects.frozen_tensors(model)) == names
    before = effects.frozen_facts(model, 1)
    assert before["values"] == 2 + 2 + 2 + 2 + 1 + 2
    assert effects.frozen_facts(model, 2)["sha256"] == before["sha256"]
    model[1].running_mean += torch.tensor([0.0, 2**-24])
    assert effects.frozen_facts(model, 2)["sha256"] != before["sha256"]
    assert len(before["sha256"]) == len(hashlib.sha256().hexdigest())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        ({"steps": 4, "clipped": 1.0}, "steps 4, clipped 1"),
        ([0.5, "a"], "[0.5, a]"),
        ("x" * 70, "x" * 57 + "..."),
    ],
)
def test_values_are_shown_short(value: object, text: str) -> None:
    assert settings.short(value) == text
