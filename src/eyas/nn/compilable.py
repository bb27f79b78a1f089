"""Objects that are no modules, and have methods that `torch.compile` may take: losses, and what matches for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar


class Compilable:
    """Something whose methods may run in another form; a copy of it has them as they are written.

    Attributes:
        compiled_methods: names of methods that map tensors to tensors, keep nothing, and exchange nothing with other
            processes. Every class names its own: one that inherits them may have changed what they call.
    """

    compiled_methods: ClassVar[tuple[str, ...]] = ()
    _taken: tuple[str, ...] = ()

    def compilables(self) -> tuple[object, ...]:
        """Return what does the work: this object, and others that it leaves a part of it to."""
        return (self,)

    def own_methods(self) -> tuple[str, ...]:
        """Return the methods that its class itself names, but for those that somebody has set another function for."""
        return tuple(name for name in vars(type(self)).get("compiled_methods", ()) if name not in vars(self))

    def take(self, method: str, form: Callable[..., Any]) -> None:
        """Let a method run in another form from now on."""
        setattr(self, method, form)  # hides the method of the class
        self._taken = (*self._taken, method)

    def give_back(self) -> None:
        """Let all methods run as they are written."""
        for method in self._taken:
            vars(self).pop(method, None)
        self._taken = ()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in (*self._taken, "_taken")}


def compilables(thing: object) -> tuple[object, ...]:
    """Return what does the work of a thing, see `Compilable.compilables`; a user's own may be anything."""
    return thing.compilables() if isinstance(thing, Compilable) else (thing,)
