"""What the code of a user's method does for the options of a run, read from its instructions before it runs.

Only these count: ``self.args.X``, ``getattr(self.args, "X")`` and ``self.args.get("X")``, also through a variable, an
attribute or an argument that holds the options, ``self.plan.X``, and a stock method called through ``super()`` or its
class. Options that are handed on whole may be read out of sight. Methods and functions of the user's that are called
are read as well.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from eyas.run.overrides import codes, is_stock, stock_bases

PLANNED = {"warmup_batches": "warmup_epochs", "accumulate": "nbs"}  # names in the plan of what comes from options
IGNORED = frozenset({"CACHE", "COPY_FREE_VARS", "EXTENDED_ARG", "KW_NAMES", "NOP", "PRECALL", "PUSH_NULL", "RESUME"})
# What stands on top of the stack, as far as it matters here.
SELF, SUPER, OPTIONS, PLAN, ASK, GETATTR, ADJUST, OTHER = range(8)
HOLDERS = ("args", "hyp")  # what an argument is called that takes the options


@dataclass
class Reading:
    """What was found in a method.

    Attributes:
        options: that it reads.
        whole: whether it hands all options on, out of sight.
        stock: methods of Eyas' own classes that it calls.
        own: attributes and methods of ``self`` that it uses.
        adjusters: that it passes values through.
    """

    options: set[str] = field(default_factory=set)
    whole: bool = False
    stock: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)
    adjusters: set[str] = field(default_factory=set)

    def reads(self, option: str) -> bool:
        """Whether an option may have an effect through this method."""
        return self.whole or option in self.options


class Step(NamedTuple):
    """One instruction: ``load``, ``const``, ``attribute``, ``store``, ``store attribute``, ``super``, ``call``, ..."""

    kind: str
    name: Any


def read(cls: type, fn: Callable[..., Any]) -> Reading:
    """Return what a method of a class does, and what the user's own methods and functions that it calls do."""
    found, waiting, seen = Reading(), [fn], set[Callable[..., Any]]()
    kept = {"args"}  # attributes that hold the options
    while waiting:
        function = waiting.pop()
        if function in seen:
            continue
        seen.add(function)
        around = surroundings(function)
        reader = _Reader(cls, found, around, kept)
        for code in codes(function.__code__):
            reader.go_through(code, first_argument(function))
        waiting += reached(cls, found, around, function)
    return found


def arguments_read(fn: Callable[..., Any]) -> set[str]:
    """Return parameters whose value a function uses; ``*args`` and ``**kwargs`` may hold any."""
    parameters = inspect.signature(fn).parameters
    loaded = {step.name for code in codes(fn.__code__) for step in steps(code) if step.kind == "load"}
    used = loaded & set(parameters)
    packed = {
        name
        for name in used
        if parameters[name].kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    }
    return used | ({"*"} if packed else set())


class _Reader:
    """Walks through instructions and remembers what the last values on the stack are."""

    def __init__(self, cls: type, found: Reading, around: dict[str, object], kept: set[str]) -> None:
        self.stock_classes = stock_bases(cls)
        self.found, self.around, self.kept = found, around, kept
        self.variables: dict[str, int] = {}
        self.below, self.top = OTHER, OTHER
        self.pending = False  # whether ``super`` was loaded and not called yet

    def go_through(self, code: CodeType, own_name: str) -> None:
        """Read one piece of code, in which ``own_name`` is the object whose method it is."""
        named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        self.variables |= {own_name: SELF, **{name: OPTIONS for name in HOLDERS if name in named}}
        found = list(steps(code))
        for number, step in enumerate(found):
            if self.top in (OPTIONS, PLAN):
                self.found.whole |= handed_on(found, number, self.below)
            self.take(step)

    def take(self, step: Step) -> None:
        """Read one instruction."""
        kind, name = step
        if kind == "attribute":
            self.top = self.attribute(name)
        elif kind == "super":
            self.found.stock.add(name)
            self.push(OTHER)
        elif kind == "load":
            self.push(self.load(name))
        elif kind == "const":
            self.constant(name)
        elif kind == "store":
            self.variables[name] = self.top if self.top in (OPTIONS, PLAN) else self.variables.get(name, OTHER)
            self.push(OTHER)
        elif kind == "store attribute" and self.below == OPTIONS:
            self.kept.add(name)
        elif kind == "call":
            self.push(SUPER if self.pending else OTHER)
            self.pending = False
        else:
            self.push(OTHER)

    def push(self, value: int) -> None:
        self.below, self.top = self.top, value

    def load(self, name: str) -> int:
        """Return what a variable holds."""
        self.pending |= name == "super"
        self.found.whole |= self.top == ASK  # asked for by a name that is not known here
        value = self.around.get(name)
        if inspect.isfunction(value) and is_stock(value):  # a stock method that was kept in a variable
            self.found.stock.add(value.__name__)
        if any(value is stock for stock in self.stock_classes):
            return SUPER
        return GETATTR if name == "getattr" else self.variables.get(name, OTHER)

    def attribute(self, name: str) -> int:
        """Return what an attribute of the value on top is."""
        if self.top == SUPER:
            self.found.stock.add(name)
        elif self.top == OPTIONS:
            self.found.options |= set() if name == "get" else {name}
            return ASK if name == "get" else OTHER
        elif self.top == PLAN:
            self.found.options.add(PLANNED.get(name, name))
        elif name in self.kept:
            return OPTIONS
        elif self.top == SELF:
            self.found.own.add(name)
            return {"plan": PLAN, "adjust": ADJUST}.get(name, OTHER)
        return OTHER

    def constant(self, value: object) -> None:
        """Take note of a text that names an option or an adjuster."""
        if isinstance(value, str):
            if self.top == ASK or (self.top == OPTIONS and self.below == GETATTR):
                self.found.options.add(value)
            elif self.top == ADJUST:
                self.found.adjusters.add(value)
        self.push(OTHER)


def handed_on(found: list[Step], number: int, below: int) -> bool:
    """Whether options on top of the stack leave the code: nothing is read from them, and they are stored nowhere."""
    kind = found[number].kind
    if kind in ("attribute", "store", "store attribute") or (kind == "const" and below == GETATTR):
        return False
    for step in found[number:]:  # `model.args = self.args` loads the place to store it in before it stores it
        if step.kind not in ("load", "attribute"):
            return step.kind != "store attribute"
    return False


def steps(code: CodeType) -> Iterator[Step]:
    """Yield the instructions of a piece of code in one form for all versions of Python, those joined in one apart."""
    for instruction in dis.get_instructions(code):
        name, value = instruction.opname, instruction.argval
        if name in IGNORED:
            continue
        if name == "LOAD_CONST":
            yield Step("const", value)
        elif name in ("LOAD_ATTR", "LOAD_METHOD"):
            yield Step("attribute", value)
        elif name == "LOAD_SUPER_ATTR":
            yield Step("super", value)
        elif name == "STORE_ATTR":
            yield Step("store attribute", value)
        elif name.startswith(("LOAD_FAST", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_NAME", "STORE_")):
            kinds = [
                part.partition("_")[0].lower()
                for part in name.replace("_STORE_", " STORE_").replace("_LOAD_", " LOAD_").split()
            ]
            values = value if isinstance(value, tuple) else (value,)
            yield from (Step(one, each) for one, each in zip(kinds, values, strict=False))
        else:
            yield Step("call" if name.startswith("CALL") else "other", None)


def surroundings(fn: Callable[..., Any]) -> dict[str, object]:
    """Return the variables around a function, those of its module included."""
    function = inspect.unwrap(fn)
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {**function.__globals__, **{name: contents(cell) for name, cell in cells}}


def contents(cell: Any) -> object:
    """Return what a variable around a function holds; nothing where it was not set yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def first_argument(fn: Callable[..., Any]) -> str:
    """Return the name of a method's own object."""
    return fn.__code__.co_varnames[0] if fn.__code__.co_argcount else "self"


def reached(cls: type, found: Reading, around: dict[str, object], fn: Callable[..., Any]) -> list[FunctionType]:
    """Return the user's own methods, and functions and classes of the same package, that a function mentions."""
    package = fn.__module__.partition(".")[0]
    mentioned = [around.get(name) for code in codes(fn.__code__) for name in (*code.co_names, *code.co_freevars)]
    things = [vars(base)[name] for name in found.own for base in cls.__mro__ if name in vars(base)]
    things += [thing for thing in mentioned if str(getattr(thing, "__module__", "")).partition(".")[0] == package]
    functions = [fn for thing in things for fn in (vars(thing).values() if isinstance(thing, type) else (thing,))]
    unwrapped = [inspect.unwrap(fn) for fn in functions if inspect.isfunction(fn)]
    return [fn for fn in unwrapped if not is_stock(fn)]
