"""Lets ``import ultralytics`` find what `eyas.compat.ultralytics` lists, and says what to use for all else."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from eyas.compat.doors import door
from eyas.compat.ultralytics import MODULES, ROOT, TABLE, answered, lookup, reason
from eyas.names import nearest


class AnsweringModule(ModuleType):
    """A module of the table: its names are read, and cannot be set, since no training would read them from here."""

    def __setattr__(self, name: str, value: object) -> None:
        """Let Python set its own names and the modules below.

        Raises:
            AttributeError: any other name; says what to do instead.
        """
        own = name.startswith("__") and name.endswith("__")
        if not own and not isinstance(value, ModuleType):
            raise AttributeError(
                f"{name!r} of {self.__name__} cannot be set: nothing reads it from there under Eyas, so that your "
                f"code would never be used. Instead, {door(self.__name__)}; see docs/trainer.md."
            )
        super().__setattr__(name, value)


class EyasCompatFinder(MetaPathFinder, Loader):
    """Finds the modules of the table and makes them; it has no state, so it travels to other processes by name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module of the table; None for modules that are none of our business.

        Raises:
            ImportError: the table has no such module or name; tells the nearest, and what there is.
        """
        if fullname.partition(".")[0] != ROOT:
            return None
        if fullname not in MODULES:
            raise missing(fullname)
        # Every module counts as a package: Python then asks here for a name that `from module import name` did not
        # find, and the answer can be more helpful than "cannot import name".
        return importlib.util.spec_from_loader(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> AnsweringModule:
        """Return an empty module, whose names cannot be set."""
        return AnsweringModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Give a module its names, looked up when they are first asked for."""
        name = module.__name__
        module.__doc__ = f"{name}, as far as Eyas stands in for it: {', '.join(listed(name)) or 'a package'}."
        module.__dict__["__getattr__"] = attribute_of(name)
        module.__dict__["__all__"] = [key for key in answered(name) if not key.startswith("__")]


def attribute_of(module: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module."""

    def get(name: str) -> Any:
        if name in answered(module):
            return lookup(module, name)
        if f"{module}.{name}" in MODULES:  # as of a package that has imported its parts
            return importlib.import_module(f"{module}.{name}")
        if (gone := reason(f"{module}.{name}")) is not None:
            raise AttributeError(f"Eyas has no {name!r} of {module}: {gone.instead}.")
        raise AttributeError(f"module {module!r} has no {name!r} under Eyas; it has {', '.join(listed(module))}")

    return get


def listed(module: str) -> list[str]:
    """Return the names and modules that can be imported from a module."""
    inner = {path.removeprefix(f"{module}.") for path in MODULES if path.startswith(f"{module}.")}
    return sorted({*answered(module), *(name for name in inner if "." not in name)})


def missing(fullname: str) -> ImportError:
    """Return the error for a module or name that the table does not have."""
    gone = reason(fullname)
    if gone is not None:
        parent, _, name = fullname.rpartition(".")
        return ImportError(f"Eyas has no {name!r} of {parent}: {gone.instead}.", name=fullname)
    parent, _, name = fullname.rpartition(".")
    while parent not in MODULES:
        parent, _, name = parent.rpartition(".")
    if name in answered(parent):
        return ImportError(f"{name!r} of {parent} is a name, not a module: from {parent} import {name}", name=fullname)
    elsewhere = {key: module for module in TABLE for key in answered(module)}
    near = nearest(name, [*listed(parent), *elsewhere])
    hint = ""
    if near:
        home = parent if near[0] in listed(parent) else elsewhere[near[0]]
        hint = f" Did you mean {near[0]!r} from {home}?"
    return ImportError(
        f"Eyas has nothing for {name!r} of {parent}.{hint} It has {', '.join(listed(parent))}.", name=fullname
    )


def install() -> EyasCompatFinder:
    """Put the finder first among Python's importers, once, and return it.

    Modules of the same name that were imported from elsewhere before are forgotten, so that all names agree.
    """
    for finder in sys.meta_path:
        if isinstance(finder, EyasCompatFinder):
            return finder
    for name in [name for name in sys.modules if name.partition(".")[0] == ROOT]:
        del sys.modules[name]
    finder = EyasCompatFinder()
    sys.meta_path.insert(0, finder)
    return finder


def uninstall() -> None:
    """Take the finder and its modules away again."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, EyasCompatFinder)]
    for name in [name for name, module in sys.modules.items() if served(module)]:
        del sys.modules[name]


def served(module: ModuleType | None) -> bool:
    """Whether a module was made by the finder."""
    spec = getattr(module, "__spec__", None)
    return isinstance(getattr(spec, "loader", None), EyasCompatFinder)
