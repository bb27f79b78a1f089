"""Do the customisations of a run fit together? Two that fight over one decision stop it before the first step.

Precedence is override > component > option > recipe > default; whoever was asked for and loses is an error that names
both. A method that is replaced without calling the stock one makes void what the stock one would have done: that is
read from its code, before anything runs.
"""

from __future__ import annotations

import dis
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eyas.augment.settings import AugmentSettings
from eyas.callbacks.base import UNASKED, Callback, Decision
from eyas.metrics.detection import FITNESS_WEIGHTS, fitness
from eyas.run.overrides import codes, names_in, overrides

if TYPE_CHECKING:
    from eyas.config import TrainOptions
    from eyas.train.trainer import BaseTrainer


class ConflictError(ValueError):
    """Two customisations decide the same thing, or one makes another void."""


@dataclass(frozen=True)
class Method:
    """What a stock method does for options and components, and so what is lost when it is replaced.

    Attributes:
        adjusters: adjusters that it calls.
        options: options that it alone reads.
        arguments: option -> argument through which the method is told its value.
        calls: other methods that it calls; one that is replaced and not called takes its options with it.
    """

    adjusters: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    calls: tuple[str, ...] = ()


AUGMENTATION = tuple(AugmentSettings.__dataclass_fields__)

METHODS: dict[str, Method] = {
    "build_optimizer": Method(
        adjusters=("adjust_param_groups",),
        arguments=(("optimizer", "name"), ("lr0", "lr"), ("momentum", "momentum"), ("weight_decay", "decay")),
    ),
    "optimizer_step": Method(adjusters=("adjust_gradients",)),
    "preprocess_batch": Method(options=("multi_scale",)),
    "get_dataloader": Method(options=("workers", "sampler", "sampler_threshold"), calls=("build_dataset",)),
    "build_dataset": Method(options=("cache", "fraction", "classes", *AUGMENTATION)),
    "get_validator": Method(options=("conf", "iou", "max_det", "save_json", "save_txt", "save_conf")),
    "set_model_attributes": Method(options=("nms", "agnostic_nms")),
    "get_model": Method(options=("cls_remap",)),
    "lf": Method(options=("schedule", "cos_lr", "lrf")),
}


def refuse_conflicts(trainer: BaseTrainer) -> None:
    """Stop a run whose customisations fight.

    Raises:
        ConflictError: names both sides of every conflict, one line each.
    """
    lines = [*shared_decisions(trainer.callbacks.callbacks), *void_by_override(trainer)]
    if lines:
        raise ConflictError("\n".join(lines))


def refuse_option_beside_component(components: list[Callback], options: TrainOptions) -> None:
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


def shared_decisions(components: list[Callback]) -> Iterator[str]:
    """Yield a line for every decision that two components make."""
    first: dict[str, Callback] = {}
    for component in components:
        if component.decides is None:
            continue
        other = first.setdefault(component.decides, component)
        if other is not component:
            names = f"{type(other).__name__} and {type(component).__name__}"
            yield f"two components decide {component.decides}: {names}; give one of them."


def void_by_override(trainer: BaseTrainer) -> Iterator[str]:
    """Yield a line for everything asked for that a replaced method makes void."""
    replaced = {name: fn for name, fn in overrides(type(trainer)).items() if name in METHODS}
    if "lf" in replaced:
        for component in trainer.callbacks.callbacks:
            if component.decides == Decision.SCHEDULE:
                yield (
                    f"{asked(component, trainer.args)} and {replaced['lf'].__qualname__}() both decide the schedule; "
                    "give one of them."
                )
    for name, fn in replaced.items():
        lost = lost_methods(type(trainer), name, fn, replaced)
        for component in trainer.callbacks.callbacks:
            for adjuster in (a for method in lost for a in METHODS[method].adjusters):
                if (
                    adjusts(component, adjuster)
                    and component.origin not in UNASKED
                    and adjuster not in names_reached(type(trainer), fn)
                ):
                    yield (
                        f"{asked(component, trainer.args)} has no effect: {fn.__qualname__}() replaces {name}() and "
                        f"calls neither super().{name}() nor self.adjust({adjuster!r}, ...). Remove one of the two."
                    )
        options = [o for method in lost for o in METHODS[method].options]
        options += [o for o, argument in METHODS[name].arguments if lost and argument not in reads(fn)]
        mentioned = names_reached(type(trainer), fn)
        for option in options:
            if trainer.args.is_typed(option) and option not in mentioned:
                value = f"{option}={trainer.args.get(option)!r} ({trainer.args.source(option)})"
                yield f"{value} has no effect: {fn.__qualname__}() decides it itself. Remove one of the two."


def refuse_second_fitness(trainer: BaseTrainer, own: float | None) -> None:
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


def lost_methods(cls: type, name: str, fn: Callable[..., Any], replaced: dict[str, Any]) -> list[str]:
    """Return the stock methods that no longer run because ``fn`` replaced ``name``: none if it calls the stock one."""
    called = names_reached(cls, fn)
    if name in called:
        return []
    return [name, *(other for other in METHODS[name].calls if other not in called and other not in replaced)]


def adjusts(component: Callback, adjuster: str) -> bool:
    """Whether a component has an adjuster of its own that it cannot do without."""
    return getattr(type(component), adjuster) is not getattr(Callback, adjuster) and component.needs(adjuster)


def asked(component: Callback, options: TrainOptions) -> str:
    """Say who asked for a component, in the words the user wrote."""
    typed = [f"{name}={options.get(name)!r}" for name in component.options if options.is_typed(name)]
    return ", ".join(typed) + f" ({component.origin})" if typed else f"the {type(component).__name__} component"


def names_reached(cls: type, fn: Callable[..., Any]) -> set[str]:
    """Return what a method mentions, and what the user's own methods that it mentions do."""
    own = {
        name: inspect.unwrap(value)
        for base in cls.__mro__
        if base is not object and not base.__module__.startswith("eyas.")
        for name, value in vars(base).items()
        if inspect.isfunction(value)
    }
    found, waiting = set[str](), [fn]
    while waiting:
        new = names_in(waiting.pop()) - found
        found |= new
        waiting += [own[name] for name in new if name in own and own[name] is not fn]
    return found


def reads(fn: Callable[..., Any]) -> set[str]:
    """Return arguments whose value a function's code uses."""
    names = set(inspect.signature(fn).parameters)
    if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in inspect.signature(fn).parameters.values()):
        return {argument for method in METHODS.values() for _, argument in method.arguments}
    used: set[str] = set()
    for code in codes(fn.__code__):
        for step in dis.get_instructions(code):
            if any(
                load in step.opname for load in ("LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE")
            ):  # 3.13 joins two in one
                used |= set(step.argval) if isinstance(step.argval, tuple) else {step.argval}
    return used & names
