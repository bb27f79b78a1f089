"""Do the customisations of a run fit together? Two that fight over one decision stop it before the first step.

Precedence is override > component > option > recipe > default; whoever was asked for and loses is an error that names
both. A method that is replaced without calling the stock one makes void what the stock one would have done: that is
read from its code, before anything runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eyas.callbacks.base import UNASKED, Callback, Decision
from eyas.config import TrainOptions, option_names
from eyas.config.options import facts
from eyas.metrics.detection import FITNESS_WEIGHTS, fitness
from eyas.run.overrides import overrides
from eyas.run.protocol import Component, Run
from eyas.run.reading import Reading, arguments_read, read


class ConflictError(ValueError):
    """Two customisations decide the same thing, or one makes another void."""


@dataclass(frozen=True)
class Method:
    """What a stock method does for others, and so what is lost when it is replaced; its options say so themselves.

    Attributes:
        adjusters: adjusters that it calls.
        calls: other methods that it calls; one that is replaced and not called takes its options with it.
    """

    adjusters: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()


CALLS: dict[str, Method] = {
    "build_optimizer": Method(adjusters=("adjust_param_groups",)),
    "optimizer_step": Method(adjusters=("adjust_gradients",)),
    "get_dataloader": Method(calls=("build_dataset",)),
    "set_rates": Method(adjusters=("adjust_schedule", "adjust_rates"), calls=("lf",)),
}


def refuse_conflicts(trainer: Run) -> None:
    """Stop a run whose customisations fight.

    Raises:
        ConflictError: names both sides of every conflict, one line each.
    """
    lines = [*shared_decisions(trainer.callbacks.callbacks), *void_by_override(trainer)]
    if lines:
        raise ConflictError("\n".join(lines))


def refuse_option_beside_component(components: Sequence[Callback], options: TrainOptions) -> None:
    """Stop if an option asks for what a given component already decides.

    Raises:
        ConflictError: names both.
    """
    lines = [
        f"{name}={options.get(name)!r} ({options.source(name)}) and the {type(component).__name__} component both "
        f"decide {component.decides}; give one of them."
        for component in components
        for name in component.options
        if options.is_typed(name)
    ]
    if lines:
        raise ConflictError("\n".join(lines))


def shared_decisions(components: Sequence[Component]) -> Iterator[str]:
    """Yield a line for every decision that two components make."""
    first: dict[str, Component] = {}
    for component in components:
        if component.decides is None:
            continue
        other = first.setdefault(component.decides, component)
        if other is not component:
            names = f"{type(other).__name__} and {type(component).__name__}"
            yield f"two components decide {component.decides}: {names}; give one of them."


def void_by_override(trainer: Run) -> Iterator[str]:
    """Yield a line for everything asked for that a replaced method makes void."""
    needed = {facts(name).needs for name in option_names("train")}
    replaced = {name: fn for name, fn in overrides(type(trainer)).items() if name in needed | set(CALLS)}
    if "lf" in replaced:
        for component in trainer.callbacks.callbacks:
            if component.decides == Decision.SCHEDULE:
                yield (
                    f"{asked(component, trainer.args)} and {replaced['lf'].__qualname__}() both decide the schedule; "
                    "give one of them."
                )
    for name, fn in replaced.items():
        reading = read(type(trainer), fn)
        if name in reading.stock:
            continue
        calls = CALLS.get(name, Method()).calls
        lost = [name, *(other for other in calls if other not in reading.own and other not in replaced)]
        yield from void_components(trainer, name, fn, lost, reading)
        yield from void_options(trainer, fn, lost, reading)


def void_components(
    trainer: Run, name: str, fn: Callable[..., Any], lost: list[str], reading: Reading
) -> Iterator[str]:
    """Yield a line for every component that a person asked for and whose adjuster is no longer called."""
    adjusters = [a for method in lost for a in CALLS.get(method, Method()).adjusters if a not in reading.adjusters]
    for component in trainer.callbacks.callbacks:
        for adjuster in adjusters:
            if component.adjusts(adjuster) and component.origin not in UNASKED:
                yield (
                    f"{asked(component, trainer.args)} has no effect: {fn.__qualname__}() replaces {name}() and "
                    f"calls neither super().{name}() nor self.adjust({adjuster!r}, ...). Remove one of the two."
                )


def void_options(trainer: Run, fn: Callable[..., Any], lost: list[str], reading: Reading) -> Iterator[str]:
    """Yield a line for every typed option that only a lost method reads."""
    arguments = arguments_read(fn)
    for option in option_names("train"):
        known = facts(option)
        told = known.argument is not None and {known.argument, "*"} & arguments
        if known.needs in lost and trainer.args.is_typed(option) and not told and not reading.reads(option):
            value = f"{option}={trainer.args.get(option)!r} ({trainer.args.source(option)})"
            yield f"{value} has no effect: {fn.__qualname__}() decides it itself. Remove one of the two."


def refuse_second_fitness(trainer: Run, own: float | None) -> None:
    """Stop if an override of ``validate()`` returns a fitness of its own while a component was asked to choose.

    Its code cannot tell whether an override only adds metrics, so this is asked at the first validation.

    Raises:
        ConflictError: names both.
    """
    override = overrides(type(trainer)).get("validate")
    stock = {k: trainer.metrics[k] for k in FITNESS_WEIGHTS if k in trainer.metrics}
    if override is None or own is None or len(stock) < len(FITNESS_WEIGHTS) or math.isclose(own, fitness(stock)):
        return
    for component in trainer.callbacks.callbacks:
        if component.decides == Decision.BEST:
            raise ConflictError(
                f"{asked(component, trainer.args)} and {override.__qualname__}(), which returns a fitness of its own, "
                "both decide which epoch is the best; give one of them."
            )


def asked(component: Component, options: TrainOptions) -> str:
    """Say who asked for a component, in the words the user wrote."""
    typed = [f"{name}={options.get(name)!r}" for name in component.options if options.is_typed(name)]
    return ", ".join(typed) + f" ({component.origin})" if typed else f"the {type(component).__name__} component"
