"""Methods that a script has put on classes which answer the incumbent's names, and which training does not use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType

from eyas.compat import losses
from eyas.compat.doors import door
from eyas.log import warn

ANSWERS = "eyas.compat.answers."
# torch wraps methods that need no gradient; typing and pydantic write methods of protocols and checked classes.
WRITERS = frozenset(("eyas", "torch", "typing", "pydantic"))


def tell_patched(criterion: object) -> None:
    """Warn of every such method; a script may call it itself, so that this is no error.

    Args:
        criterion: what the training computes its loss with; the incumbent's losses count where it is Eyas' own.
    """
    for owner, name, function in patched(unused_modules(criterion)):
        code = function.__code__
        warn(
            f"{owner.__name__}.{name} was set at {code.co_filename}:{code.co_firstlineno}, and training does not use "
            f"the class {owner.__name__}. For it to count, {door(owner.__module__)}; see docs/trainer.md."
        )


def unused_modules(criterion: object) -> Iterator[ModuleType]:
    """Give the loaded modules whose classes a training has no use for."""
    yield from [module for name, module in list(sys.modules.items()) if name.startswith(ANSWERS)]
    if type(criterion).__module__.startswith("eyas.losses."):
        yield losses


def patched(modules: Iterator[ModuleType]) -> Iterator[tuple[type, str, FunctionType]]:
    """Give (class, attribute, function) of every function on a class of these modules that was written elsewhere."""
    for module in modules:
        for owner in [value for value in vars(module).values() if isinstance(value, type)]:
            if owner.__module__ == module.__name__:
                for name, value in list(vars(owner).items()):
                    function = plain_function(value)
                    if function is not None and not of_eyas(function):
                        yield owner, name, function


def plain_function(value: object) -> FunctionType | None:
    """Return the function behind an attribute of a class, as it was written; None where there is none."""
    inner = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    return inner if isinstance(inner, FunctionType) else None


def of_eyas(function: FunctionType) -> bool:
    """Whether a function is from Eyas; a wrapper that took the name of what it wraps is from where it was written."""
    places = (function.__module__, function.__globals__.get("__name__"))
    return all(str(place).partition(".")[0] in WRITERS for place in places)
