"""Objects that are no modules, and have methods that `torch.compile` may take: losses, and what matches for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar


class Compilable:
    """Something whose methods may run in another form; a copy of it has them as they are written.

    Attributes:
        compiled_methods: names of methods that map tensors to tensors, keep nothing, and exchange nothing with other
            processes. A class that names its own, even none, also says that all of it may be called for nothing; one
            that inherits them may have changed that, and says nothing.
    """

    compiled_methods: ClassVar[tuple[str, ...]] = ()
    _forms: Mapping[str, Callable[..., Any]] = {}

    def compilables(self) -> tuple[object, ...]:
        """Return what does the work: this object, and others that it leaves a part of it to."""
        return (self,)

    def take(self, method: str, form: Callable[..., Any]) -> None:
        """Let a method run in another form from now on."""
        setattr(self, method, form)  # hides the method of the class
        self._forms = {**self._forms, method: form}

    def give_back(self) -> None:
        """Let all methods run as they are written, or as somebody else has set them meanwhile."""
        for method, form in self._forms.items():
            if vars(self).get(method) is form:
                delattr(self, method)
        vars(self).pop("_forms", None)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name != "_forms"}
        for method, form in self._forms.items():
            if state.get(method) is form:
                del state[method]
        return state


def compilables(thing: object) -> tuple[object, ...]:
    """Return what does the work of a thing, see `Compilable.compilables`; a user's own may be anything."""
    return thing.compilables() if isinstance(thing, Compilable) else (thing,)


def objection(part: object) -> str:
    """Return why a part must not be called for nothing; empty if it may."""
    kind, name = type(part), type(part).__name__
    if kind.__module__.startswith("torch.nn."):
        return ""
    if not isinstance(part, Compilable) or "compiled_methods" not in vars(kind):
        return f"{name} does not say what of it can be compiled (compiled_methods)."
    by_hand = [key for key, value in part.__getstate__().items() if callable(value) and key in dir(kind)]
    return f"somebody has set {name}.{by_hand[0]} to a function." if by_hand else ""
