"""Methods of a user's classes that look like hooks and that nothing will call: they stop a run before its first step.

A method is called if it takes the place of one of ours, or of torch's, or if the user's own code uses it. What looks
like a hook says `hook_names`; all other names are free for helpers. The same holds for properties, for other things
that can be called, and for such attributes of a trainer or a callback.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple

from torch import nn

from eyas.callbacks.base import ADJUSTERS, EVENTS
from eyas.log import LOGGER
from eyas.prove.hook_names import TRAINER_METHODS, VALUES, hook_instead, is_callbacks, is_trainers
from eyas.run.overrides import is_stock, overrides, stock_bases
from eyas.run.protocol import Run

INSTALLED = frozenset({"site-packages", "dist-packages"})
BY_NAME = frozenset({"getattr", "hasattr", "methodcaller", "attrgetter"})  # functions that take an attribute's name
STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
ANY = "*"  # among names: an attribute whose name is made while the program runs
ITSELF = frozenset({"self", "cls", "super"})
ELSEWHERE = frozenset({"model", "ema", "optimizer", "scaler", "scale", "criterion", "loss", "validator", "torch", "nn"})
"""Names under which a training holds what is neither a trainer nor a callback."""
HARMLESS = frozenset(
    {
        *("property", "setter", "getter", "deleter", "cached_property", "classmethod", "staticmethod"),
        *("abstractmethod", "override", "final", "wraps", "cache", "lru_cache", "singledispatchmethod"),
        *("contextmanager", "no_grad", "enable_grad", "inference_mode", "autocast", "compile", "ignore"),
    }
)
"""Decorators that keep a function nowhere but in its own place."""
DESCRIPTORS = (property, functools.cached_property, functools.partialmethod, functools.singledispatchmethod)


class UncalledError(ValueError):
    """A method looks like a hook, and nothing calls it."""


class Use(NamedTuple):
    """A place in the user's code that names an attribute.

    Attributes:
        name: of the attribute.
        receiver: name of what it is an attribute of, ``self`` where a name stands for it in other ways; empty for a
            function that is called by its own name.
        called: whether it is called there, or only read.
        owner: name of the method around it, of a class that is looked at; empty elsewhere.
    """

    name: str
    receiver: str = "self"
    called: bool = True
    owner: str = ""


def refuse_uncalled(things: Iterable[object]) -> None:
    """Stop if a method of one of these objects looks like a hook and nothing will call it.

    Raises:
        UncalledError: one line for each, with its place and the hook to use instead.
    """
    attributes = {type(thing): getattr(thing, "__dict__", {}) for thing in things}
    lines = [line for cls, own in attributes.items() for line in (*uncalled(cls, own), *unreached(cls))]
    if lines:
        raise UncalledError("\n".join(lines))


def parts(network: object, validator: object) -> list[object]:
    """Return a network, its loss and the branches of that, and a validator."""
    criterion = getattr(network, "criterion", None)  # a user's own network may keep its loss elsewhere
    branches = [getattr(criterion, name, None) for name in ("one2many", "one2one")]
    return [network, criterion, *branches, validator]


def uncalled(cls: type, attributes: Mapping[str, object] | None = None) -> Iterator[str]:
    """Yield a line for every method of a class, or attribute of its object, that looks like a hook and has no call."""
    near = hooks_of(cls)
    members = own_members(cls)
    if is_trainers(near) or is_callbacks(near):  # networks and losses have parts of any name
        members |= own_attributes(cls, attributes or {})
    suspects = {name: use for name in members if (use := hook_instead(name, near)) and is_hooklike(members[name])}
    if not suspects:
        return
    code = UsersCode(cls)
    alive = code.used({name: members[name] for name in suspects}, own_members(cls))
    for name, use in suspects.items():
        if name not in alive:
            brackets, never, do = ("()", "called", "call") if function_in(members[name]) else ("", "used", "use")
            yield (
                f"{cls.__name__}.{name}{brackets} ({code.place(name, members[name])}) is never {never}: {use} "
                f"If it is a helper of your own, {do} it, or give it another name."
            )


def unreached(cls: type) -> Iterator[str]:
    """Yield a line for every hook that a user's base defines behind ours, where nothing reaches it."""
    hooks = set(hooks_of(cls))
    for base in filter(is_users, cls.__mro__):
        for name in sorted(hooks & vars(base).keys()):
            first = next(other for other in cls.__mro__ if name in vars(other))
            fn = function_in(vars(base)[name])
            if fn is None or not is_stock(first) or is_installed(base) or only_declares(base, fn):
                continue
            if any(use.name == name and use.receiver == base.__name__ for use in UsersCode(cls).uses):
                continue
            heir = next(k for k in reversed(cls.__mro__) if issubclass(k, base) and issubclass(k, first))
            ours = next(k for k in heir.__mro__ if is_stock(k))
            place = f"{Path(fn.__code__.co_filename).name}:{fn.__code__.co_firstlineno}"
            yield (
                f"{base.__name__}.{name}() ({place}) is never called: it stands behind {ours.__name__}. "
                f"Write class {heir.__name__}({base.__name__}, {ours.__name__})."
            )


def only_declares(cls: type, fn: FunctionType) -> bool:
    """Whether a function of a class says what others have, as in a protocol."""
    return getattr(cls, "_is_protocol", False) or getattr(fn, "__isabstractmethod__", False)


def tell_idle(run: Run) -> None:
    """Say which hooks of the user's trainer an option leaves without a call."""
    pictures = ("plot_training_labels", "plot_training_samples", "plot_metrics")
    idle = {} if run.args.plots else dict.fromkeys(pictures, "plots=False")
    idle |= {} if run.args.batch in (None, "auto") else {"auto_batch": f"batch={run.args.batch} was given"}
    for name, fn in overrides(type(run)).items():
        if name in idle:
            LOGGER.info("%s() is not called: %s.", fn.__qualname__, idle[name])


# -- what is the user's ------------------------------------------------------------------------------------------------
def own_members(cls: type) -> dict[str, object]:
    """Return what the user's bases of a class of ours define and that takes the place of nothing."""
    if not stock_bases(cls):
        return {}
    mine = [base for base in cls.__mro__ if is_users(base)]
    others = {name for base in cls.__mro__ if base not in mine for name in vars(base)}
    found = {name: value for base in reversed(mine) if not is_installed(base) for name, value in vars(base).items()}
    return {name: value for name, value in found.items() if name not in others and not name.startswith("__")}


def own_attributes(cls: type, attributes: Mapping[str, object]) -> dict[str, object]:
    """Return which attributes of an object of a user's class take the place of nothing."""
    if not any(is_users(base) for base in cls.__mro__):
        return {}
    known = dir(cls)
    return {name: value for name, value in attributes.items() if name not in known}


def is_hooklike(value: object) -> bool:
    """Whether a value is a function that is not Eyas' own, or stands in the place of one; classes do not."""
    if isinstance(value, type):
        return False
    fn = function_in(value)
    return not is_stock(fn) if fn else callable(value) or isinstance(value, DESCRIPTORS)


def is_installed(cls: type) -> bool:
    """Whether a class is of an installed package that was not made for Eyas: what it defines is for others to call."""
    return not INSTALLED.isdisjoint(Path(module_file(cls.__module__) or "").parts) and not stock_bases(cls)


def users_functions(cls: type) -> list[FunctionType]:
    """Return all functions that the user's bases of a class define, those of properties and the like included."""
    values = [value for base in cls.__mro__ if is_users(base) for value in vars(base).values()]
    return [fn for value in values if (fn := function_in(function_of(value))) and not is_stock(fn)]


def function_of(value: object) -> object:
    """Return what a descriptor calls; other values as they are."""
    if isinstance(value, property):
        return value.fget
    return value.func if isinstance(value, functools.cached_property | functools.partial) else value


def is_users(cls: type) -> bool:
    """Whether a class is neither Eyas' own nor torch's nor of the standard library."""
    return is_free(cls.__module__)


def function_in(value: object) -> FunctionType | None:
    """Return the function behind a method, static and class methods included; None for everything else."""
    value = inspect.unwrap(value.__func__ if isinstance(value, staticmethod | classmethod) else value)  # type: ignore[arg-type]
    return value if isinstance(value, FunctionType) else None


def hooks_of(cls: type) -> list[str]:
    """Return the names that are called in a class of this kind."""
    public = {name for base in stock_bases(cls) for name in vars(base) if not name.startswith("_")}
    hooks = {*TRAINER_METHODS, *EVENTS, *ADJUSTERS}
    return sorted(public & hooks or public)


# -- what the user's code uses -----------------------------------------------------------------------------------------
class UsersCode:
    """The user's code around a class, as far as it was loaded.

    Attributes:
        uses: of attributes, in all of its files.
        places: ``file:line`` where the class or its object gets an attribute, by name.
    """

    def __init__(self, cls: type) -> None:
        mine = [base for base in cls.__mro__ if is_users(base)]
        self.classes = {base.__name__ for base in mine}
        self.elsewhere = frozenset() if issubclass(cls, nn.Module) else ELSEWHERE
        self.uses: list[Use] = []
        self.places: dict[str, str] = {}
        functions = users_functions(cls)
        sources = {fn.__code__.co_filename: fn.__module__ for fn in functions}
        sources |= {file: base.__module__ for base in mine if (file := module_file(base.__module__))}
        for filename in own_files(sources):
            reader = Reader(self.classes)
            reader.read(filename)
            self.uses += reader.uses
            self.places |= {name: f"{Path(filename).name}:{line}" for name, line in reader.lines.items()}
        for fn in functions:
            if not linecache.getlines(fn.__code__.co_filename):
                self.uses += [Use(name, owner=fn.__name__) for name in names_in_code(fn.__code__)]

    def used(self, suspects: Mapping[str, object], members: Mapping[str, object]) -> set[str]:
        """Return which suspects are used, other than by those that are not used themselves.

        Args:
            suspects: what looks like a hook.
            members: suspects and all else that the class has.
        """
        uses = [use for use in self.uses if use.name == ANY or self.counts(use, suspects.get(use.name))]
        for name, value in suspects.items():
            if fn := function_in(value):
                uses += [
                    Use(name, owner=other) for other in members if other != name and function_in(members[other]) is fn
                ]
                plain = "" if "." in fn.__qualname__ else fn.__name__
                uses += [use._replace(name=name) for use in self.uses if not use.receiver and use.name == plain]
        alive: set[str] = set()
        while more := {use.name for use in uses if use.owner not in suspects or use.owner in alive} - alive:
            alive |= more
        return set(suspects) if ANY in alive else alive

    def counts(self, use: Use, value: object) -> bool:
        """Whether a place uses this value of that name, rather than a namesake of another object."""
        if use.receiver in ITSELF or use.receiver in self.classes:
            return True
        if not use.receiver or use.receiver in self.elsewhere:
            return False
        return use.called or function_in(value) is None or not re.fullmatch(VALUES, use.name)

    def place(self, name: str, value: object) -> str:
        """Return ``file:line`` of an attribute, as far as it is known."""
        fn = function_in(value)
        known = self.places.get(name, "set elsewhere")
        return f"{Path(fn.__code__.co_filename).name}:{fn.__code__.co_firstlineno}" if fn else known


def module_file(module: str) -> str | None:
    """Return the file of a module that is loaded; None if there is none, as for a notebook's."""
    return getattr(sys.modules.get(module), "__file__", None)


def own_files(sources: Mapping[str, str]) -> set[str]:
    """Return these files, the script, and modules and notebook cells beside their packages.

    Args:
        sources: file -> name of its module.
    """
    loaded = {file for name in list(sys.modules) if is_free(name) and (file := module_file(name))}
    folders = {folder for file, module in sources.items() if (folder := package_folder(Path(file), module))}
    cells = [name for name in linecache.cache if not Path(name).exists()]
    script = module_file("__main__")
    beside = {name for name in (*loaded, *cells) if is_beside(Path(name), folders)}
    return sources.keys() | beside | ({script} if script else set())


def package_folder(file: Path, module: str) -> Path | None:
    """Return the folder of a module, or of the package that this is in; None for code without a file."""
    if not file.is_absolute() and not file.exists():
        return None
    depth = module.count(".") + (file.name == "__init__.py")
    return file.resolve().parents[depth] if depth < len(file.resolve().parents) else None


def is_free(module: str) -> bool:
    """Whether a module of this name may be the user's: it is not Eyas', torch's or of the standard library."""
    top = module.partition(".")[0]
    return top == "__main__" or top not in {"eyas", "torch", *sys.stdlib_module_names}


def is_beside(path: Path, folders: set[Path]) -> bool:
    """Whether a file is Python's and lies in or below one of these folders, and not in an installed package there."""
    if path.suffix != ".py" or not path.is_absolute() or path.is_relative_to(STANDARD_LIBRARY):
        return False
    path = path.resolve()
    return any(
        path.is_relative_to(folder) and not INSTALLED & set(path.relative_to(folder).parts) for folder in folders
    )


class Reader(ast.NodeVisitor):
    """Collects the uses of attributes in a file.

    Attributes:
        uses: what was found.
        lines: line where a class that is looked at, or an object itself, gets an attribute, by name.
    """

    def __init__(self, classes: set[str]) -> None:
        self.classes = classes
        self.uses: list[Use] = []
        self.lines: dict[str, int] = {}
        self.around: list[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef] = []
        self.made: frozenset[str] = frozenset()  # attributes that the assignment around makes

    def read(self, filename: str) -> None:
        """Read a file; one that cannot be parsed may use anything."""
        try:
            self.visit(ast.parse("".join(linecache.getlines(filename))))
        except SyntaxError:
            self.add(ANY)

    def add(self, name: str, receiver: str = "self", called: bool = True) -> None:
        """Note a use in the method around."""
        owners = [
            inner.name
            for outer, inner in zip(self.around, self.around[1:], strict=False)
            if isinstance(outer, ast.ClassDef) and outer.name in self.classes and not isinstance(inner, ast.ClassDef)
        ]
        self.uses.append(Use(name, receiver, called, owners[0] if owners else ""))

    def in_class(self) -> bool:
        """Whether this is directly in the body of a class that is looked at."""
        return bool(self.around) and isinstance(self.around[-1], ast.ClassDef) and self.around[-1].name in self.classes

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.around.append(node)
        self.generic_visit(node)
        self.around.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if self.in_class():
            self.lines.setdefault(node.name, node.lineno)
            if not {name_of(decorator) for decorator in node.decorator_list} <= HARMLESS:
                self.add(node.name)  # it may have been registered somewhere
        self.around.append(node)
        self.generic_visit(node)
        self.around.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Name(self, node: ast.Name) -> None:
        if self.in_class() and isinstance(node.ctx, ast.Load):
            self.add(node.id)
        elif self.in_class():
            self.lines.setdefault(node.id, node.lineno)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        receiver = name_of(node.value)
        if isinstance(node.ctx, ast.Load):
            self.add(node.attr, receiver, called=False)
        elif receiver == "self":
            self.lines.setdefault(node.attr, node.lineno)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = name_of(node.func)
        if isinstance(node.func, ast.Attribute):
            self.add(node.func.attr, name_of(node.func.value))
        elif isinstance(node.func, ast.Name):
            self.add(node.func.id, receiver="")
        of_self = bool(node.args) and isinstance(node.args[0], ast.Name) and node.args[0].id == "self"
        if called in BY_NAME and of_self and not all(isinstance(a, ast.Constant) for a in node.args[1:2]):
            self.add(ANY)
        if called == "setattr":
            node.args = [a for a in node.args if not isinstance(a, ast.Constant)]  # a name that is given, not used
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and node.value not in self.made:
            self.add(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring is no use
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if any(name_of(target).startswith("__") for target in node.targets):  # __all__ and the like
            return
        # In ``training_step = hook("training_step")`` an attribute is told its own name, which is no use of it.
        made = {name_of(target) for target in node.targets if self.in_class() or isinstance(target, ast.Attribute)}
        outer, self.made = self.made, self.made | made
        self.generic_visit(node)
        self.made = outer


def name_of(node: ast.expr) -> str:
    """Return the last name of an expression: ``c`` of ``a.b.c``, of ``a.b.c[0]`` and of ``a.b.c(x)``."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=inner) | ast.Subscript(value=inner):
            return name_of(inner)
    return "?"


def names_in_code(code: CodeType) -> set[str]:
    """Return the names in a function whose source is not at hand, those of functions inside it included."""
    inner = (names_in_code(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)
