"""Facts of an option beside its type, range and default; they stand on its field, and tables are made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True)
class Void:
    """When an option has no effect: while every one of some other options has one of some values.

    Attributes:
        others: names of those options.
        values: what they have; with ``unless``, what one of them must have for the option to have an effect.
        why: for the person who typed it; ``{o.name}`` stands for the value of another option.
        unless: turns ``values`` round.
        spared: values of the option itself that mean something all the same.
    """

    others: tuple[str, ...]
    values: tuple[object, ...]
    why: str
    unless: bool = False
    spared: tuple[object, ...] = ()

    def applies(self, name: str, options: Mapping[str, object]) -> bool:
        """Whether the option ``name`` has no effect among these."""
        ruled = all((options[other] in self.values) != self.unless for other in self.others)
        return ruled and options[name] not in self.spared


@dataclass(frozen=True)
class Fixed:
    """A rehearsal has this value whatever was typed: the option only costs time or says where files lie."""

    value: object


class Rehearsed(Enum):
    """How an option is shortened for a rehearsal of two epochs (``eyas.rehearsal.shorten`` holds the functions)."""

    GIVEN = auto()  # the rehearsal chooses it anew: data, folder, processes, size, length
    COUNT = auto()  # a number of epochs
    PERIOD = auto()  # every so many epochs
    EACH = auto()  # every epoch instead of every so many
    WARM_UP = auto()  # a length in epochs, parts of one included
    PHASES = auto()  # phases of freezing
    PHASE_LENGTH = auto()  # the length of one
    RAMP = auto()  # the length of its ramp
    STOP_RULE = auto()  # a rule of early stopping
    SHARE = auto()  # a share of the images: all of the few
    PRECISION = auto()  # one that a CPU has as well


class Teller(Enum):
    """Who tells what an option really did (``eyas.prove.effects``).

    Each is known as soon as the run is set up, except for those marked so: what they do shows in the first epoch.
    """

    CALL = auto()  # nobody: it is taken apart while options are read, and never reaches a run
    FOLDER = auto()
    PLACE = auto()  # device, processes, precision
    DATA = auto()
    MODEL = auto()
    LOADER = auto()
    PLAN = auto()
    OPTIMIZER = auto()
    CRITERION = auto()
    VALIDATOR = auto()
    REPORT = auto()
    BATCH = auto()  # first epoch
    RATES = auto()  # first epoch
    AVERAGE = auto()  # first epoch
    LOOP = auto()  # first epoch
    COMPONENT = auto()  # the component that the option asks for, where one hangs in the loop


FIRST_EPOCH = frozenset({Teller.BATCH, Teller.RATES, Teller.AVERAGE, Teller.LOOP})


@dataclass(frozen=True)
class Facts:
    """What is known of one option.

    Attributes:
        group: where it is listed.
        commands: those that use it.
        expected: what a value looks like, where the type alone says too little.
        auto: what None stands for.
        also: other names that people know it by.
        void: when it has no effect.
        resumable: whether a run that goes on may change it without becoming another training; None for options that
            no training has.
        rehearsed: its form in a rehearsal; None leaves it as it was typed.
        told_by: who tells what it did; None for options that no training has.
        needs: method of the trainer without which it is void, unless an override reads the option.
        argument: argument through which that method is told the value.
        adjusted_by: hooks and methods that may give it another value with good right.
        hint: what else may keep its effect away.
        step: values are rounded up to a multiple of this.
        at_start: it says how a run begins; one that goes on takes that from its checkpoint.
    """

    group: str
    commands: tuple[str, ...] = ("train",)
    expected: str = ""
    auto: str = ""
    also: tuple[str, ...] = ()
    void: tuple[Void, ...] = ()
    resumable: bool | None = None
    rehearsed: Rehearsed | Fixed | None = None
    told_by: Teller | None = None
    needs: str | None = None
    argument: str | None = None
    adjusted_by: tuple[str, ...] = ()
    hint: str = ""
    step: int = 1
    at_start: bool = False


def without(others: str, why: str, *, spared: tuple[object, ...] = ()) -> Void:
    """Return the fact that an option does nothing while others are off: None, False or 0."""
    return Void(tuple(others.split()), (None, False), why, spared=spared)


def only_with(other: str, values: tuple[object, ...], why: str) -> Void:
    """Return the fact that an option does something only while another one has one of some values."""
    return Void((other,), values, why, unless=True)


def replaced_by(other: str) -> Void:
    """Return the fact that another option, once given, takes this one's place."""
    return only_with(other, (None,), f"{other}={{o.{other}}} replaces it")
