"""Methods of a user's classes that look like hooks and that nothing will call: they stop a run before its first step.

A method is called if it takes the place of one of ours, or of torch's, or if the user's own code names it. What looks
like a hook says `hook_names`; all other names are free for helpers.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType

from eyas.callbacks.base import ADJUSTERS, EVENTS
from eyas.log import LOGGER
from eyas.prove.hook_names import TRAINER_METHODS, hook_instead
from eyas.run.overrides import is_stock, overrides, stock_bases
from eyas.run.protocol import Run

INSTALLED = frozenset({"site-packages", "dist-packages"})
BY_NAME = frozenset({"getattr", "hasattr", "methodcaller", "attrgetter"})  # functions that take an attribute's name
STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
ANY = "*"  # among names: an attribute whose name is made while the program runs


class UncalledError(ValueError):
    """A method looks like a hook, and nothing calls it."""


def refuse_uncalled(classes: Iterable[type]) -> None:
    """Stop if a method of one of these classes looks like a hook and nothing will call it.

    Raises:
        UncalledError: one line for each, with its place and the hook to use instead.
    """
    lines = [line for cls in dict.fromkeys(classes) for line in uncalled(cls)]
    if lines:
        raise UncalledError("\n".join(lines))


def parts(network: object, validator: object) -> list[type]:
    """Return the classes of a network, its loss and the branches of that, and of a validator."""
    criterion = getattr(network, "criterion", None)  # a user's own network may keep its loss elsewhere
    branches = [getattr(criterion, name, None) for name in ("one2many", "one2one")]
    return [type(thing) for thing in (network, criterion, *branches, validator)]


def uncalled(cls: type) -> Iterator[str]:
    """Yield a line for every method of a class that looks like a hook and that nothing will call."""
    near = hooks_of(cls)
    suspects = {name: use for name in own_methods(cls) if (use := hook_instead(name, near))}
    if not suspects:
        return
    functions = users_functions(cls)
    named = names_used(functions)
    for name, use in suspects.items():
        if not named & {name, ANY}:
            code = own_methods(cls)[name].__code__
            place = f"{Path(code.co_filename).name}:{code.co_firstlineno}"
            yield (
                f"{cls.__name__}.{name}() ({place}) is never called: {use}. If it is a helper of your own, call it, or "
                "give it another name."
            )


def tell_idle(run: Run) -> None:
    """Say which hooks of the user's trainer an option leaves without a call."""
    pictures = ("plot_training_labels", "plot_training_samples", "plot_metrics")
    idle = {} if run.args.plots else dict.fromkeys(pictures, "plots=False")
    idle |= {} if run.args.batch is None else {"auto_batch": f"batch={run.args.batch} was given"}
    for name, fn in overrides(type(run)).items():
        if name in idle:
            LOGGER.info("%s() is not called: %s.", fn.__qualname__, idle[name])


# -- what is the user's ------------------------------------------------------------------------------------------------
def own_methods(cls: type) -> dict[str, FunctionType]:
    """Return the user's methods that take the place of nothing, of a class that derives from one of ours."""
    if not stock_bases(cls):
        return {}
    mine = [base for base in cls.__mro__ if is_users(base)]
    others = {name for base in cls.__mro__ if base not in mine for name in vars(base)}
    found = {name: function_in(value) for base in reversed(mine) for name, value in vars(base).items()}
    return {
        name: fn
        for name, fn in found.items()
        if fn is not None and name not in others and not name.startswith("__") and not is_stock(fn)
    }


def users_functions(cls: type) -> list[FunctionType]:
    """Return all methods that the user's bases of a class define."""
    values = [value for base in cls.__mro__ if is_users(base) for value in vars(base).values()]
    return [fn for value in values if (fn := function_in(value)) and not is_stock(fn)]


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


# -- what the user's code names ----------------------------------------------------------------------------------------
def names_used(functions: Sequence[FunctionType]) -> set[str]:
    """Return attributes that the user's code around these functions names, as far as it was loaded."""
    used: set[str] = set()
    for filename in own_files(functions):
        used |= names_in(filename)
    for fn in functions:
        if not linecache.getlines(fn.__code__.co_filename):
            used |= names_in_code(fn.__code__) - {fn.__name__}
    return used


def own_files(functions: Iterable[FunctionType]) -> set[str]:
    """Return the files of these functions, the script, and modules and notebook cells beside their packages."""
    modules = [module for name, module in list(sys.modules.items()) if is_free(name)]
    loaded = {str(file) for module in modules if (file := getattr(module, "__file__", None))}
    folders = {folder for fn in functions if (folder := package_folder(fn))}
    cells = [name for name in linecache.cache if not Path(name).exists()]
    script = getattr(sys.modules["__main__"], "__file__", None)
    beside = {name for name in (*loaded, *cells) if is_beside(Path(name), folders)}
    return {fn.__code__.co_filename for fn in functions} | beside | ({str(script)} if script else set())


def package_folder(fn: FunctionType) -> Path | None:
    """Return the folder of a function's module, or of the package that this is in; None for code without a file."""
    file = Path(fn.__code__.co_filename)
    if not file.is_absolute() and not file.exists():
        return None
    depth = fn.__module__.count(".") + (file.name == "__init__.py")
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


def names_in(filename: str) -> set[str]:
    """Return the attributes that a file's code reads; those of a method's own name, as of super(), do not count."""
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except SyntaxError:
        return {ANY}
    reader = _Names()
    reader.visit(tree)
    return reader.names


class _Names(ast.NodeVisitor):
    """Collects names of attributes that are read."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.inside: list[str] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.inside.append(node.name)
        self.generic_visit(node)
        self.inside.pop()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load) and node.attr not in self.inside:
            self.names.add(node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in BY_NAME and node.args:
            self.names |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
            on_self = isinstance(node.args[0], ast.Name) and node.args[0].id == "self"
            self.names |= {ANY} if on_self and not all(isinstance(a, ast.Constant) for a in node.args[1:2]) else set()
        self.generic_visit(node)


def names_in_code(code: CodeType) -> set[str]:
    """Return the names in a function whose source is not at hand, those of functions inside it included."""
    inner = (names_in_code(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)
