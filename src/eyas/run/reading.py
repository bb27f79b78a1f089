"""What the code of a user's method does for the options of a run, read from its source before it runs.

Only these count: ``self.args.X``, ``getattr(self.args, "X")`` and ``self.args.get("X")``, also through a variable, an
attribute or an argument that holds the options, ``self.plan.X``, and a stock method called through ``super()`` or its
class. Options that are handed on whole may be read out of sight, and so may those of a method whose source is not at
hand. Methods and functions of the user's that are called are read as well.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from eyas.run.overrides import is_stock, stock_bases

HOLDERS = frozenset({"args", "hyp", "opt", "options"})  # what an argument is called that takes the options
PLANNED = {"warmup_batches": "warmup_epochs", "accumulate": "nbs"}  # names in the plan of what comes from options


@dataclass
class Reading:
    """What was found in a method.

    Attributes:
        options: that it reads.
        whole: whether it may read any, out of sight.
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


def read(cls: type, *functions: Callable[..., Any]) -> Reading:
    """Return what methods of a class do, and what the user's own methods and functions that they call do."""
    found, kept = Reading(), {"args"}  # attributes that hold options
    for _ in range(2):  # an attribute may be read in a method that comes before the one that sets it
        waiting, seen = list(functions), set[Callable[..., Any]]()
        while waiting:
            if (function := waiting.pop()) not in seen:
                seen.add(function)
                waiting += _Reader(cls, function, found, kept).read()
    return found


def arguments_read(fn: Callable[..., Any]) -> set[str]:
    """Return parameters whose value a method uses; ``"*"`` if it uses those that may hold any."""
    tree, parameters = source_of(fn), inspect.signature(fn).parameters
    if tree is None:
        return {*parameters, "*"}
    loaded = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    used = loaded & set(parameters)
    return used | {"*" for name in used if parameters[name].kind in several}


class _Reader(ast.NodeVisitor):
    """Goes through one function. Whoever uses options consumes them; those that are still visited are handed on."""

    def __init__(self, cls: type, fn: Callable[..., Any], found: Reading, kept: set[str]) -> None:
        self.cls, self.fn, self.found, self.kept = cls, fn, found, kept
        self.around = surroundings(fn)
        self.variables: dict[str, str] = {}  # name -> "options" or "plan"
        self.reached: list[FunctionType] = []

    def read(self) -> list[FunctionType]:
        """Take note of everything, and return functions to read as well."""
        tree = source_of(self.fn)
        if tree is None:
            self.found.whole = True
        else:
            self.visit(tree)
        return self.reached

    # -- what an expression is -----------------------------------------------------------------------------------------
    def kind(self, node: ast.expr) -> str | None:
        """Return ``"options"`` or ``"plan"`` for what holds them."""
        if isinstance(node, ast.Name):
            return self.variables.get(node.id)
        if isinstance(node, ast.Attribute):
            return "options" if node.attr in self.kept else "plan" if self.is_self(node.value, "plan", node) else None
        return None

    def is_self(self, base: ast.expr, name: str, node: ast.Attribute) -> bool:
        """Whether ``node`` is the attribute ``name`` of the object whose method this is."""
        return node.attr == name and isinstance(base, ast.Name) and base.id == first_argument(self.fn)

    def value(self, node: ast.expr) -> object:
        """Return what a name stands for in the surroundings of the function."""
        return self.around.get(node.id) if isinstance(node, ast.Name) else None

    # -- what is done with it ------------------------------------------------------------------------------------------
    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        named = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        self.variables |= {argument.arg: "options" for argument in named if argument.arg in HOLDERS}
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if kind := self.kind(node.value):
            self.variables |= {target.id: kind for target in node.targets if isinstance(target, ast.Name)}
            self.kept |= {target.attr for target in node.targets if isinstance(target, ast.Attribute)}
        else:
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self.found.whole |= self.kind(node) is not None and isinstance(node.ctx, ast.Load)
        thing = self.value(node)
        if inspect.isfunction(thing) and is_stock(thing):  # a stock method that was kept in a variable
            self.found.stock.add(thing.__name__)
        self.reached += self.followed(thing)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        base, kind = node.value, self.kind(node.value)
        if kind is not None:
            if isinstance(node.ctx, ast.Load):
                self.found.options.add(PLANNED.get(node.attr, node.attr) if kind == "plan" else node.attr)
            return
        self.found.whole |= self.kind(node) is not None
        called = isinstance(base, ast.Call) and isinstance(base.func, ast.Name) and base.func.id == "super"
        if called or any(self.value(base) is stock for stock in stock_bases(self.cls)):
            self.found.stock.add(node.attr)
        elif self.is_self(base, node.attr, node):
            self.found.own.add(node.attr)
            methods = [
                inspect.unwrap(fn)
                for owner in self.cls.__mro__
                if isinstance(fn := vars(owner).get(node.attr), FunctionType)
            ]
            self.reached += [fn for fn in methods if not fn.__module__.startswith(("eyas.", "torch."))]
        self.visit(base)

    def visit_Call(self, node: ast.Call) -> None:
        called, arguments = node.func, [*node.args, *(keyword.value for keyword in node.keywords)]
        text = next((a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)), None)
        if isinstance(called, ast.Attribute) and called.attr == "get" and self.kind(called.value) == "options":
            self.asked(text)
        elif isinstance(called, ast.Name) and called.id == "getattr" and self.kind(node.args[0]) == "options":
            self.asked(text)
            arguments = arguments[1:]
        else:
            if isinstance(called, ast.Attribute) and self.is_self(called.value, "adjust", called) and text:
                self.found.adjusters.add(text)
            before = len(self.reached)
            self.visit(called)
            if any(takes_options(fn) for fn in self.reached[before:]):
                arguments = [argument for argument in arguments if self.kind(argument) is None]
        for argument in arguments:
            self.visit(argument)

    def asked(self, name: str | None) -> None:
        """Take note of an option that is asked for by its name, or by one that is not known here."""
        self.found.options |= {name} if name else set()
        self.found.whole |= name is None

    def followed(self, thing: object) -> list[FunctionType]:
        """Return the functions of what lies in the same package, and so is the user's own."""
        package = self.fn.__module__.partition(".")[0]
        if str(getattr(thing, "__module__", "")).partition(".")[0] != package or package == "eyas":
            return []
        found = [*vars(thing).values()] if isinstance(thing, type) else [thing]
        unwrapped = [inspect.unwrap(fn) for fn in found if inspect.isfunction(fn)]
        return [fn for fn in unwrapped if not is_stock(fn)]


def source_of(fn: Callable[..., Any]) -> ast.AST | None:
    """Return the source of a function as a tree, None where there is none to be read."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(fn))))
    except (OSError, TypeError, SyntaxError):
        return None


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


def takes_options(fn: FunctionType) -> bool:
    """Whether a function has an argument that is called like one that holds options."""
    return bool(HOLDERS & set(fn.__code__.co_varnames[: fn.__code__.co_argcount + fn.__code__.co_kwonlyargcount]))
