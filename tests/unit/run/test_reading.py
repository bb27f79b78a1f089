"""What an override's code does is read exactly: an option counts as read only where the options are asked for it."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest

from eyas import DetectionTrainer
from eyas.run.reading import arguments_read, read


def helper(args: Any) -> Any:
    return args.workers


def from_trainer(trainer: Any) -> Any:
    return trainer.args.cache


class Kinds(DetectionTrainer):
    def direct(self) -> Any:
        return self.args.mosaic

    def by_name(self) -> Any:
        return getattr(self.args, "mosaic")  # noqa: B009

    def asked(self) -> Any:
        return self.args.get("mosaic", 0)

    def through_a_variable(self) -> Any:
        given = self.args
        return [given.mosaic for _ in range(2)]

    def through_an_attribute(self) -> Any:
        self.hyp = self.args
        return self.hyp.mosaic

    def in_a_nested_function(self) -> Any:
        return [(lambda: self.args.mosaic)() for _ in range(2)]

    def in_a_helper_method(self) -> Any:
        return self.direct()

    def in_the_plan(self) -> Any:
        return self.plan.lr0

    def as_a_method_of_something(self, ds: Any) -> Any:
        return ds.scale(2).cache().mosaic

    def as_a_text(self) -> Any:
        return {"mosaic": 1}["mosaic"]

    def assigned(self) -> None:
        self.args.mosaic = 0.0

    def given_to_a_model(self) -> None:
        self.model.args = self.args

    def in_a_function(self) -> Any:
        return helper(self.args), from_trainer(self)

    def handed_on(self) -> Any:
        return dict(self.args)

    def by_an_unknown_name(self, name: str) -> Any:
        return getattr(self.args, name), self.args.get(name)


@pytest.mark.parametrize(
    "method",
    [
        "direct", "by_name", "asked", "through_a_variable", "through_an_attribute", "in_a_nested_function",
        "in_a_helper_method",
    ],
)  # fmt: skip
def test_what_counts_as_reading(method: str) -> None:
    found = read(Kinds, getattr(Kinds, method))
    assert found.options == {"mosaic"} and not found.whole


@pytest.mark.parametrize("method", ["as_a_method_of_something", "as_a_text", "assigned", "given_to_a_model"])
def test_what_does_not(method: str) -> None:
    found = read(Kinds, getattr(Kinds, method))
    assert found.options == set() and not found.whole


def test_values_of_the_plan_come_from_options_too() -> None:
    assert read(Kinds, Kinds.in_the_plan).options == {"lr0"}


def test_options_handed_on_may_be_read_out_of_sight() -> None:
    assert read(Kinds, Kinds.handed_on).reads("anything")
    assert read(Kinds, Kinds.by_an_unknown_name).reads("anything")
    found = read(Kinds, Kinds.in_a_function)
    assert found.options == {"workers", "cache"} and not found.whole, "functions of the user's are read as well"


def wrapped(fn: Any) -> Any:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


def kept(fn: Any) -> Any:
    def wrapper(self: Any) -> Any:
        return fn(self)

    return wrapper


class Calls(DetectionTrainer):
    def plain(self) -> None:
        super().optimizer_step()

    def explicit(self) -> None:
        super(Calls, self).optimizer_step()  # noqa: UP008

    def by_class(self) -> None:
        DetectionTrainer.optimizer_step(self)

    @wrapped
    def decorated(self) -> None:
        super().optimizer_step()

    in_a_variable = kept(DetectionTrainer.optimizer_step)

    def of_something_else(self) -> None:
        self.model.optimizer_step()

    def an_adjuster(self) -> None:
        self.adjust("adjust_gradients", [])


@pytest.mark.parametrize("method", ["plain", "explicit", "by_class", "decorated", "in_a_variable"])
def test_ways_to_call_the_stock_method(method: str) -> None:
    assert "optimizer_step" in read(Calls, inspect.unwrap(getattr(Calls, method))).stock


def test_what_is_no_call_of_it() -> None:
    assert read(Calls, Calls.of_something_else).stock == set()
    found = read(Calls, Calls.an_adjuster)
    assert found.adjusters == {"adjust_gradients"} and "adjust" in found.own


def test_arguments_that_are_used() -> None:
    def uses(self: Any, model: Any, name: str, lr: float, momentum: float) -> Any:
        return [model, lambda: lr]

    def unused(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        return model

    def handed(self: Any, model: Any, **kwargs: Any) -> Any:
        return uses(self, model, **kwargs)

    assert arguments_read(uses) == {"model", "lr"}
    assert arguments_read(unused) == {"model"}
    assert arguments_read(handed) == {"self", "model", "kwargs", "*"}
