"""`torch.compile` of a loss: of those of its methods that map tensors to tensors, each tried on made-up images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from eyas import dist
from eyas.nn.compilable import Compilable, compilables, objection
from eyas.train.trials import beginning, difference, outcome, tensors

# Largest difference of results and gradients, relative to their norm, of the same predictions: a sum in another order
# differs by 1e-6, another choice between two anchors that are as good by 1e-2.
TOLERANCE = 0.05
ELSEWHERE = "another process could not compile it."


class CompiledMethod:
    """A method in both forms. While it is tried, callers get what the written one returns.

    Attributes:
        refused: why the compiled form is not used; empty if nothing is known against it.
        tried: whether anybody has called it.
        settled: whether what it is given now must not be compiled anew: only the number of objects is another.
    """

    def __init__(self, owner: Compilable, name: str, settings: Mapping[str, Any]) -> None:
        self.owner, self.name = owner, name
        self.written = getattr(owner, name)
        self.compiled = torch.compile(self.written, dynamic=False, **settings)
        self.refused = ""
        self.tried = self.settled = False

    def __call__(self, *given: Any) -> Any:
        self.tried = True
        self.refused = self.refused or self.trial(given)
        return self.written(*given)

    def trial(self, given: tuple[Any, ...]) -> str:
        """Run both forms, forward and backward; return what is wrong, empty if nothing is."""
        try:
            with torch.compiler.set_stance("fail_on_recompile" if self.settled else "default"):
                made = outcome(self.of_any_size, given)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler's, or a user's loss's: anything may come
            return f"torch.compile failed ({beginning(error)})."
        with torch.compiler.set_stance("force_eager"):
            apart = difference(made, outcome(self.written, given))
        return "" if apart <= TOLERANCE else f"compiled, its results differ by {apart:.2g} of their size."

    def of_any_size(self, *given: Any) -> Any:
        """Run the compiled form, which is compiled for any size that it does not itself make a constant."""
        if not self.settled:
            for tensor in tensors(given):
                torch._dynamo.maybe_mark_dynamic(tensor, list(range(tensor.ndim)))
        return self.compiled(*given)


class CompiledLoss:
    """The methods of a loss that `torch.compile` has taken, or why it has not.

    Args:
        criterion: a loss, which runs as it is written unless all its parts agree to be called for nothing: one of the
            user's own may keep what it is called with.
        settings: of `torch.compile`.
        why_not: what else is against it; empty for nothing.

    Attributes:
        refused: why a part of it runs as it is written; empty if none does.
        taken: the methods that run compiled.
    """

    def __init__(self, criterion: object, settings: Mapping[str, Any], why_not: str = "") -> None:
        parts = compilables(criterion)
        self.refused = next(filter(None, (why_not, *map(objection, parts))), "")
        self.owners = [] if self.refused else [part for part in parts if isinstance(part, Compilable)]
        self.methods = [
            CompiledMethod(owner, name, settings) for owner in self.owners for name in owner.compiled_methods
        ]
        self.taken: list[CompiledMethod] = []

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Try every method that is called within; then let those run compiled that are the same in both forms."""
        self.release()
        for method in self.methods:
            method.owner.take(method.name, method)
        failed = ""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a user's model's: anything may come
            failed = f"it cannot judge made-up images ({beginning(error)})."
        finally:
            self.release()
        for method in self.methods:
            method.refused = method.refused or failed
            if dist.any_rank(bool(method.refused)):
                self.refused = f"{type(method.owner).__name__}.{method.name}: {method.refused or ELSEWHERE}"
            elif method.tried:
                method.owner.take(method.name, method.compiled)
                self.taken.append(method)
            else:
                self.refused = f"nobody calls {type(method.owner).__name__}.{method.name}."

    def settle(self, settled: bool) -> None:
        """Say whether what is called next must not be compiled anew."""
        for method in self.methods:
            method.settled = settled

    def release(self) -> None:
        """Give the loss back as it is written."""
        for owner in self.owners:
            owner.give_back()
        self.taken = []
