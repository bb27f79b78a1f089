"""The page that callbacks, reports and proofs are written against, and those who must keep to it."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from eyas import DetectionTrainer
from eyas.callbacks import Callback
from eyas.run.protocol import Compiled, Component, Hooks, Loader, Run
from small_run import SmallRun


def members(protocol: type) -> dict[str, Any]:
    """Return what a protocol asks for: hint by attribute, function by method."""
    hints = typing.get_type_hints(protocol)
    own = {name: value for name, value in vars(protocol).items() if not name.startswith("_") or name in SPECIAL}
    properties = {n: typing.get_type_hints(v.fget)["return"] for n, v in own.items() if isinstance(v, property)}
    return hints | properties | {name: value for name, value in own.items() if inspect.isfunction(value)}


SPECIAL = ("__iter__", "__len__")
PROTOCOLS = (Run, Hooks, Component, Loader, Compiled)


def lacks(thing: object, protocol: type, where: str = "") -> list[str]:
    """Return where a thing does not keep to a protocol, attributes of attributes included."""
    wrong = []
    for name, asked in members(protocol).items():
        here = f"{where}.{name}"
        if not hasattr(thing, name):
            wrong.append(f"{here} is missing")
        elif inspect.isfunction(asked):
            wrong += [] if takes(getattr(thing, name), asked) else [f"{here} takes other arguments"]
        else:
            wrong += unfit(getattr(thing, name), asked, here)
    return wrong


def takes(method: Any, asked: Any) -> bool:
    """Whether a method can be called as another is written."""
    given = [p for p in inspect.signature(asked).parameters.values() if p.name != "self"]
    try:
        inspect.signature(method).bind(*given)
    except TypeError:
        return False
    return True


def unfit(value: Any, hint: Any, where: str) -> list[str]:
    """Return where a value is not what a hint says; a hint's parts are looked at in every item."""
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint in (Any, object):
        return []
    if origin in (typing.Union, types.UnionType):
        return [] if any(not unfit(value, arg, where) for arg in args) else [f"{where} is {value!r}, no {hint}"]
    if origin in PROTOCOLS:
        return lacks(value, origin, where)
    if typing.is_typeddict(origin):
        return [] if isinstance(value, dict) else [f"{where} is {value!r}, no mapping"]
    if not isinstance(value, (int, float) if origin is float else origin):
        return [f"{where} is {value!r}, no {hint}"]
    if issubclass(origin, Mapping):
        return [w for key, item in value.items() for w in unfit(key, args[0], where) + unfit(item, args[1], where)]
    if origin is tuple and args[-1:] != (...,):
        return [w for item, arg in zip(value, args, strict=True) for w in unfit(item, arg, where)]
    if args and issubclass(origin, (Sequence, set)):
        return [w for item in value for w in unfit(item, args[0], where)]
    return []


@pytest.mark.parametrize("epochs", [0, 1])
def test_the_run_of_these_tests_keeps_to_the_page(epochs: int) -> None:
    run = SmallRun(Callback()).fit(until=epochs)
    assert lacks(run, Run) == []


def test_a_trainer_keeps_to_the_page(digits_tiny: Path, tiny_model: Path, tmp_path: Path) -> None:
    data = {"model": str(tiny_model), "data": str(digits_tiny), "imgsz": 64, "batch": 8, "fraction": 0.25, "epochs": 1}
    place = {"project": str(tmp_path), "workers": 0, "plots": False, "verbose": False, "device": "cpu"}
    seen = []

    class Looks(Callback):
        def on_pretrain_routine_end(self, trainer: Run) -> None:
            seen.append([missing for missing in lacks(trainer, Run) if not built_by_a_step(missing)])

        def on_train_batch_end(self, trainer: Run) -> None:
            seen.append(lacks(trainer, Run))

    trainer = DetectionTrainer(overrides=data | place, _callbacks=[Looks()])
    trainer.train()
    assert seen == [[]] * 3 and lacks(trainer, Run) == []


def built_by_a_step(missing: str) -> bool:
    return missing in (".batch is missing", ".loss is missing")


def test_a_component_that_drifts_is_found() -> None:
    class Drifts(Callback):
        def needs(self) -> bool:  # type: ignore[override]
            return True

        def stages(self) -> list[Any]:  # type: ignore[override]
            return []

    run = SmallRun(Drifts())
    run.freeze_layer_names = [0]  # type: ignore[list-item]
    del run.meter
    assert lacks(run, Run) == [
        ".meter is missing",
        ".freeze_layer_names is 0, no <class 'str'>",
        ".callbacks.callbacks.needs takes other arguments",
        ".callbacks.callbacks.stages takes other arguments",
    ]
