"""Which options are searched, and among which values: a mapping of options to ranges and choices.

``{"lr0": {"low": 1e-4, "high": 1e-2, "log": True}, "mosaic": [0.0, 1.0], "optimizer": ["SGD", "AdamW"]}``: a mapping
is a range, a list its values and nothing between them. Every name and value is checked as an option of a training
before the first trial begins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from eyas.config import OptionValueError, TrainOptions, describe
from eyas.config.errors import refuse_unknown, show
from eyas.config.options import check_command, pair_schedule
from eyas.config.resolve import void_options
from eyas.config.values import to_plain
from eyas.config.yaml_text import read_mapping

if TYPE_CHECKING:
    from optuna import Trial

OF_THE_STUDY = {
    "cfg": "its options would replace those that are searched",
    "resume": "a trial that was stopped goes on by itself",
    "project": "trials lie beside the file of their study",
    "name": "trials lie beside the file of their study",
    "save_dir": "trials lie beside the file of their study",
    "exist_ok": "trials lie beside the file of their study",
}
"""Options that a study decides for its trials, and why."""
NOT_SEARCHED = OF_THE_STUDY | {
    "data": "results on different data cannot be compared",
    "val_fraction": "results on different validation images cannot be compared",
    "seed": "all trials have the same one, so that they differ by their options only; the best seed is luck",
}

DEFAULT: Mapping[str, Any] = {
    "lr0": {"low": 5e-4, "high": 2e-2, "log": True},
    "weight_decay": {"low": 1e-5, "high": 1e-2, "log": True},
    "cls": {"low": 0.25, "high": 2.0, "log": True},
    "scale": {"low": 0.0, "high": 0.9},
    "mosaic": [0.0, 0.5, 1.0],
    "mixup": {"low": 0.0, "high": 0.3},
}
"""What is searched when nothing is named.

The rate first, around those of the recipes (0.002, 0.004, 0.01), for it decides more than all others together; how
strongly the network is held back and its images are varied, which depends on how many there are; and what a wrong class
weighs beside a wrong box, which depends on how many classes there are. Six options, because thirty trials tell little
about more.
"""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        log: drawn evenly over orders of magnitude, ``low`` > 0.
        step: distance between values, counted from ``low``; None takes any value, of whole numbers each.
        whole: whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def suggest(self, name: str, trial: Trial) -> float:
        """Return the value that a trial tries."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def probes(self) -> tuple[object, ...]:
        """Return values by which the range is checked: its ends."""
        return self.low, self.high

    def plain(self) -> object:
        """Return the form in which people write it."""
        extra = {"log": True} if self.log else {"step": self.step} if self.step else {}
        return {"low": self.low, "high": self.high, **extra}

    def __str__(self) -> str:
        how = ", over orders of magnitude" if self.log else f" in steps of {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{how}"


@dataclass(frozen=True)
class Choice:
    """One of some values of any kind that options have."""

    values: tuple[Any, ...]
    log: ClassVar[bool] = False

    def suggest(self, name: str, trial: Trial) -> Any:
        """Return the value that a trial tries."""
        labels = [label_of(value) for value in self.values]
        return self.values[labels.index(trial.suggest_categorical(name, labels))]

    def probes(self) -> tuple[object, ...]:
        """Return values by which the choice is checked: all."""
        return self.values

    def plain(self) -> object:
        """Return the form in which people write it."""
        return [*self.values]

    def __str__(self) -> str:
        return " or ".join(map(show, self.values))


def label_of(value: object) -> str | int | float | bool | None:
    """Return what a study stores for a value: itself, or the text of a list or mapping, which it cannot store."""
    return json.dumps(value) if isinstance(value, list | dict) else value  # type: ignore[return-value]


Space = Mapping[str, Range | Choice]


def parse_space(given: Mapping[str, Any] | str | Path | None) -> Space:
    """Return a search space.

    Args:
        given: a mapping as at the head of this file, the path of a YAML file that holds one, or None for ``DEFAULT``.

    Raises:
        UnknownOptionError: a name is no option of a training; names the nearest.
        OptionValueError: a value that the option cannot have, an empty range, an option that is not searched.
    """
    if given is None:
        given = DEFAULT
    where: Mapping[str, str] = {}
    if isinstance(given, str | Path):
        given, where = read_mapping(Path(given))
    if not isinstance(given, Mapping) or not given:
        raise OptionValueError(f"space={show(given)}: expected a mapping such as {{lr0: {{low: 1e-4, high: 1e-2}}}}")
    space: dict[str, Range | Choice] = {}
    for name, item in given.items():
        at = f"space: {where[name]}: {name}" if name in where else f"space: {name}"
        describe(name)
        if name in NOT_SEARCHED:
            raise OptionValueError(f"{at} is not searched: {NOT_SEARCHED[name]}")
        space[name] = one_of(name, to_plain(item), at)
    check_command(space, "train")
    return space


def one_of(name: str, item: Any, at: str) -> Range | Choice:
    """Return the values of one option."""
    if isinstance(item, dict):
        found: Range | Choice = range_of(name, item, at)
    elif isinstance(item, list):
        found = choice_of(item, at)
    else:
        raise OptionValueError(f"{at}={show(item)}: expected a range {{low: ..., high: ...}} or a list of values")
    for value in found.probes():
        TrainOptions(**{name: value})
    return found


def range_of(name: str, item: dict[str, Any], at: str) -> Range:
    """Return a range, whole numbers where the option has no others."""
    try:
        refuse_unknown(item, ("low", "high", "log", "step"), at)
    except ValueError as error:
        raise OptionValueError(str(error)) from None
    kind = describe(name).type
    if not ("int" in kind or "float" in kind):
        raise OptionValueError(f"{at} has no range: it is {kind}. Give a list of values.")
    numbers: dict[str, Any] = {
        key: item.get(key) for key in ("low", "high", *(["step"] if item.get("step") is not None else []))
    }
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise OptionValueError(f"{at}: {key}={show(value)}: expected a number")
    log, whole = item.get("log", False), "float" not in kind
    if not isinstance(log, bool):
        raise OptionValueError(f"{at}: log={show(log)}: expected true or false")
    low, high, step = item["low"], item["high"], item.get("step")
    if whole and not all(float(value).is_integer() for value in numbers.values()):
        raise OptionValueError(f"{at}: {name} is a whole number, and so are low, high and step")
    if not low < high:
        raise OptionValueError(f"{at}: low={low} must be below high={high}")
    if log and (low <= 0 or step is not None):
        raise OptionValueError(f"{at}: log: true needs a low above 0, and no step")
    if step is not None and not (step > 0 and math.isclose((high - low) / step, round((high - low) / step))):
        raise OptionValueError(f"{at}: {high} is no whole number of steps of {step} above {low}")
    return Range(low, high, log, step, whole)


def choice_of(item: list[Any], at: str) -> Choice:
    """Return a choice among different values."""
    if len({json.dumps(value) for value in item}) < max(len(item), 2):
        raise OptionValueError(f"{at}={show(item)}: expected a list of at least two different values")
    return Choice(tuple(item))


# -- with the options that all trials share ----------------------------------------------------------------------------
def trial_options(base: TrainOptions, values: Mapping[str, Any]) -> TrainOptions:
    """Return the options of a trial: those of all, and values of its own, without what these make void.

    ``close_mosaic`` says nothing in a trial without mosaic; that is no reason not to try either.

    Raises:
        OptionValueError: values that contradict each other.
    """
    merged = combined(base, values)
    void = void_options(merged)
    if not void:
        return merged
    kept = {name: value for name, value in merged.to_dict().items() if name not in void}
    return TrainOptions.from_dict(kept, {name: s for name, s in merged.sources().items() if name not in void})


def combined(base: TrainOptions, values: Mapping[str, Any]) -> TrainOptions:
    """Return options with other values for some, as if they had been given in a call."""
    given = pair_schedule(values)
    return TrainOptions.from_dict({**base.to_dict(), **given}, {**base.sources(), **dict.fromkeys(given, "call")})


def check_space(space: Space, base: TrainOptions) -> None:
    """Refuse a search that could not mean anything, before its first trial.

    Raises:
        OptionValueError: an option is given and searched, or other options make it void in every trial.
    """
    both = [name for name in space if base.is_typed(name)]
    if both:
        raise OptionValueError(f"{both[0]}={show(base.get(both[0]))} is given, and searched: leave one of them out")
    always: dict[str, str] | None = None
    for values in corners(space):
        void = void_options(combined(base, values))
        always = void if always is None else {name: why for name, why in always.items() if name in void}
    if always:
        raise OptionValueError("\n".join(always.values()))


def corners(space: Space) -> Iterator[dict[str, object]]:
    """Yield values for all options: the first of each, and for every other value of one of them that one instead."""
    first = {name: values.probes()[0] for name, values in space.items()}
    yield first
    for name, values in space.items():
        for value in values.probes()[1:]:
            yield first | {name: value}
