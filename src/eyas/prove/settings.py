"""One comparison for all options: what a person asked for against what those who work tell of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType

from torch import nn

from eyas.config import TrainOptions
from eyas.config.facts import FIRST_EPOCH, Facts, Teller
from eyas.config.options import facts
from eyas.data.remote.address import parse_room
from eyas.nn.unwrap import unwrap_model
from eyas.prove.hooks import DUE, overriding
from eyas.prove.telling import tellings
from eyas.run.overrides import is_stock, overrides
from eyas.run.protocol import Component, Run
from eyas.run.reading import arguments_read, read
from eyas.run.told import Rounded, Words

LOADING = ("get_dataloader", "build_dataset", "setup_loaders", "build_index", "augment_settings", "get_dataset")
OPTIMIZER = ("build_optimizer", "setup_optimizer")
# Methods of the trainer that make those who tell, or that do what they tell: the first suspects if they are overridden.
MAKERS: dict[Teller, tuple[str, ...]] = {
    Teller.CALL: (),
    Teller.FOLDER: ("set_folder",),
    Teller.PLACE: ("take_place", "setup", "get_model"),
    Teller.DATA: LOADING,
    Teller.MODEL: ("get_model", "setup_model"),
    Teller.LOADER: LOADING,
    Teller.PLAN: ("make_plan", "step_due", "resume_training"),
    Teller.OPTIMIZER: OPTIMIZER,
    Teller.CRITERION: ("setup_criterion", "get_model", "set_model_attributes"),
    Teller.VALIDATOR: ("get_validator", "validate", "evaluate_best"),
    Teller.REPORT: (),
    Teller.BATCH: (*LOADING, "preprocess_batch", "rescale"),
    Teller.RATES: ("set_rates", "lf", *OPTIMIZER),
    Teller.AVERAGE: ("setup", "optimizer_step"),
    Teller.LOOP: ("validation_due", "save_model", "should_stop", "out_of_time", "setup", "answer_requests"),
    Teller.COMPONENT: (),
}


@dataclass(frozen=True)
class Setting:
    """One option that a person changed.

    Attributes:
        name, value, source: as it was asked for.
        seen: what was told of it, None if nothing was.
        agrees: whether that is what was asked for.
    """

    name: str
    value: object
    source: str
    seen: object = None
    agrees: bool = True

    def problem(self, run: Run, trained: bool) -> str | None:
        """Return a line that says what is wrong and who is suspected, None if nothing is.

        Args:
            run: that it is a setting of.
            trained: whether the first validation is over; before the first step, some cannot be told of yet.
        """
        known = facts(self.name)
        asked = f"{self.name}={self.value!r} ({self.source})"
        failed = "has had no effect by the first validation" if trained else "has no effect"
        if self.seen is None:
            if not trained and (known.told_by in FIRST_EPOCH or owners(run, self.name)):
                return None
            return f"{asked} {failed}: {suspect(run, self.name, known)}"
        if not self.agrees:
            return f"{asked} {failed}: the run has {short(self.seen)}; {suspect(run, self.name, known)}"
        return None


def settings(run: Run) -> list[Setting]:
    """Return every option that a person set to something else than the default, and what is told of it now."""
    told = tellings(run)
    from_components = {name: value for c in run.callbacks.callbacks for name, value in witnessed(run, c).items()}
    return [look(run, name, told, from_components) for name in changed_options(run.args)]


def witnessed(run: Run, component: Component) -> Mapping[str, object]:
    """Return what a component tells; nothing before the run has trained."""
    return component.witness(run) if run.loss_items else {}


def changed_options(args: TrainOptions) -> list[str]:
    """Return options that a person set to something else than the default."""
    return [name for name, _ in args if args.is_changed(name)]


def owners(run: Run, name: str) -> list[Component]:
    """Return the components that an option asks for."""
    return [component for component in run.callbacks.callbacks if name in component.options]


def look(run: Run, name: str, told: Sequence[Mapping[str, object]], from_components: Mapping[str, object]) -> Setting:
    """Return what is seen of one option.

    Its component tells it where one is there, and where its value asks for none the absence is the effect; else all who
    tell of it must agree; else a method of the user's must at least read it.
    """
    known, value = facts(name), run.args.get(name)
    setting = Setting(name, value, run.args.source(name))
    if known.at_start and run.resume_from is not None:
        return replace(setting, seen=Words("as the run that goes on"))
    if name in from_components or owners(run, name):
        return replace(setting, seen=from_components.get(name))
    if known.told_by is Teller.COMPONENT and not value:
        return replace(setting, seen=Words("off"))
    values = [telling[name] for telling in told if telling.get(name) is not None]
    wrong = [seen for seen in values if not agrees(name, known, value, seen)]
    if wrong:
        return replace(setting, seen=wrong[0], agrees=adjusted(run, known))
    if values:
        return replace(setting, seen=values[0])
    return replace(setting, seen=read_by(run, name, known))


# -- comparing ---------------------------------------------------------------------------------------------------------
def agrees(name: str, known: Facts, asked: object, seen: object) -> bool:
    """Whether what was told is what was asked for; what was seen in words cannot be compared, and counts."""
    if isinstance(seen, Words):
        return True
    if name in COMPARED:
        return COMPARED[name](asked, seen)
    if isinstance(asked, int | float) and not isinstance(asked, bool):
        return same_number(math.ceil(asked / known.step) * known.step if known.step > 1 else asked, seen)
    if isinstance(asked, tuple | list) and isinstance(seen, tuple | list):
        return list(asked) == list(seen)
    return asked == seen


def same_number(asked: float, seen: object) -> bool:
    """Whether a number is the one that was told, or one of several, as of rates."""
    if isinstance(seen, list):
        return any(same_number(asked, value) for value in seen)
    if isinstance(seen, Rounded):
        return seen.low - 1e-9 <= asked <= seen.high + 1e-9
    return isinstance(seen, int | float) and math.isclose(asked, seen, rel_tol=1e-5, abs_tol=1e-9)


def same_path(asked: object, seen: object) -> bool:
    return Path(str(asked)).resolve() == Path(str(seen)).resolve()


def same_device(asked: object, seen: object) -> bool:
    """Whether one of the devices asked for is the one seen; ``0`` and ``cuda:0`` are the same, ``cuda`` is any."""
    names = [f"cuda:{part}" if part.isdigit() else part for part in str(asked).split(",")]
    return any(seen == name or str(seen).partition(":")[0] == name for name in names)


def same_period(asked: object, seen: object) -> bool:
    """Whether a period is the one seen; none at all is longer than any."""
    return isinstance(asked, int) and same_number(asked if asked > 0 else math.inf, seen)


def same_room(asked: object, seen: object) -> bool:
    """Whether what is kept of elsewhere is kept where, and as much, as was asked for."""
    wanted, found = parse_room(str(asked)), parse_room(str(seen))
    return all(part is None or part == other for part, other in zip(wanted, found, strict=True))


COMPARED: dict[str, Callable[[object, object], bool]] = {
    "project": same_path,
    "save_dir": same_path,
    "name": lambda asked, seen: Path(str(asked)) == Path(str(seen)),
    "classes": lambda asked, seen: set(asked) == set(seen),  # type: ignore[call-overload]
    "device": same_device,
    "optimizer": lambda asked, seen: str(asked).lower() == str(seen).lower(),
    "amp": lambda asked, seen: asked == "auto" or (asked or "fp32") == seen,
    "batch": lambda asked, seen: not isinstance(asked, int) or same_number(asked, seen),
    "accept_licences": lambda asked, seen: {a.lower() for a in asked} <= {s.lower() for s in seen},  # type: ignore[attr-defined]
    "backbone": lambda asked, seen: str(asked).strip().lower() == seen,
    "pretrained": lambda asked, seen: bool(asked) == seen,
    "save_period": same_period,
    "remote_cache": same_room,
}


# -- who does it, and who may have kept it away ------------------------------------------------------------------------
def adjusted(run: Run, known: Facts) -> bool:
    """Whether someone of the user's may give an option another value with good right."""
    own = overrides(type(run))
    for name in known.adjusted_by:
        if any(hook == name for _, hook in run.callbacks.registered()):
            return True
        if name in own and (known.argument is None or {known.argument, "*"} & arguments_read(own[name])):
            return True  # without an argument it calls the stock method, or would have been refused
    return False


def read_by(run: Run, name: str, known: Facts) -> Words | None:
    """Return who of the user's reads an option where nothing can be looked at, as in a data set of their own."""
    criterion = getattr(unwrap_model(run.model), "criterion", None)  # a user's model may keep its loss elsewhere
    if known.told_by is Teller.CRITERION:
        for cls in (type(criterion), type(unwrap_model(run.model))):
            if read(cls, *own_methods(cls)).reads(name):
                return Words(f"read by {type(criterion).__name__}")
    own = overrides(type(run))
    for method in makers(known):
        if method in own and read(type(run), own[method]).reads(name):
            return Words(f"read by {own[method].__qualname__}()")
    return None


def own_methods(cls: type) -> list[FunctionType]:
    """Return the methods of a class that somebody else than Eyas or torch has written."""
    bases = [base for base in cls.__mro__ if base not in (object, nn.Module) and not is_stock(base)]
    return [value for base in bases for value in vars(base).values() if isinstance(value, FunctionType)]


def makers(known: Facts) -> tuple[str, ...]:
    """Return methods that make an option work, the decisive one first."""
    first = (known.needs,) if known.needs else ()
    return (*first, *(MAKERS[known.told_by] if known.told_by else ()))


def suspect(run: Run, name: str, known: Facts) -> str:
    """Say who probably made a setting void, and what to do."""
    keys = {key for key, component in run.callbacks.by_key().items() if name in component.options}
    hooks = [hook for receiver, hook in run.callbacks.registered() if receiver in keys]
    if guilty := overriding(run, (*makers(known), *(method for hook in hooks for method in DUE.get(hook, ())))):
        return f"{guilty} probably decides it itself. Use the option there, or leave it out."
    if known.hint:
        return f"{known.hint}. Leave it out."
    return "something changed it after the set-up; look for callbacks that do, or leave it out."


def short(value: object, width: int = 60) -> str:
    """A value as one short text."""
    if isinstance(value, dict):
        text = ", ".join(f"{key} {short(item)}" for key, item in value.items())
    elif isinstance(value, list):
        text = f"[{', '.join(short(item) for item in value)}]"
    else:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= width else text[: width - 3] + "..."
